-- The amounts are added by the statement, so no row is read before.
INSERT INTO reversed_movement AS original (partition, generation, account_id, version, reversed)
SELECT $1, $2, unnest($3::uuid[]), unnest($4::bigint[]), unnest($5::bigint[])
ON CONFLICT (partition, generation, account_id, version) DO UPDATE SET reversed = original.reversed + EXCLUDED.reversed
