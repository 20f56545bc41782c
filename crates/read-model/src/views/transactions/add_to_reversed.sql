-- As add_reversed.sql, for the rows that exist.
UPDATE reversed_movement AS original SET reversed = original.reversed + new.reversed
FROM unnest($3::uuid[], $4::bigint[], $5::bigint[]) AS new(account_id, version, reversed)
WHERE original.partition = $1
  AND original.generation = $2
  AND original.account_id = new.account_id
  AND original.version = new.version
RETURNING original.account_id, original.version
