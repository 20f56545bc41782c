-- The position comes from the receipt's JSON, which may have been tampered with, so it is matched as text: $2 extracts the
-- position in partition $1, and $4 matches any valid position. The receipt of a command over several partitions is stored in
-- one of them. It contains a position in each, so it is returned for each.
SELECT
    caller,
    key,
    partition AS kept_in,
    coalesce(substring(receipt ->> 'position' FROM $2)::bigint, 0) AS "position!",
    receipt::text AS "receipt!"
FROM idempotency_key
WHERE partition = ANY($3::smallint[])
  AND (receipt ->> 'position' ~ $2 OR (partition = $1 AND (receipt ->> 'position' ~ $4) IS NOT TRUE))
ORDER BY 4, caller, key
