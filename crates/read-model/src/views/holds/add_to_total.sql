-- As add_total.sql, for the rows that exist.
UPDATE held_total AS total SET held = total.held + new.held::numeric
FROM unnest($3::text[], $4::text[]) AS new(currency, held)
WHERE total.partition = $1 AND total.generation = $2 AND total.currency = new.currency
RETURNING total.currency
