-- The rows that add_to_total.sql has not updated ($5).
INSERT INTO held_total (partition, generation, currency, held)
SELECT $1, $2, new.currency, new.held::numeric
FROM unnest($3::text[], $4::text[]) AS new(currency, held)
WHERE new.currency <> ALL ($5::text[])
