-- The changes are added by the statement, so no row is read before.
INSERT INTO held_total AS total (partition, generation, currency, held)
SELECT $1, $2, unnest($3::text[]), unnest($4::text[])::numeric
ON CONFLICT (partition, generation, currency) DO UPDATE SET held = total.held + EXCLUDED.held
