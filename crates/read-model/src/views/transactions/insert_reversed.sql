-- The rows that add_to_reversed.sql has not updated ($6 and $7).
INSERT INTO reversed_movement (partition, generation, account_id, version, reversed)
SELECT $1, $2, new.account_id, new.version, new.reversed
FROM unnest($3::uuid[], $4::bigint[], $5::bigint[]) AS new(account_id, version, reversed)
WHERE NOT EXISTS (
    SELECT FROM unnest($6::uuid[], $7::bigint[]) AS updated(account_id, version)
    WHERE updated.account_id = new.account_id AND updated.version = new.version
)
