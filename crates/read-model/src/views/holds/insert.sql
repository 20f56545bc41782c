-- The rows that update.sql has not updated ($14 and $15).
INSERT INTO account_hold (
    partition, generation, account_id, version, hold_id, currency, status, amount, captured, placed_at, expires_at, reference,
    metadata
)
SELECT
    $1, $2, new.account_id, new.version, new.hold_id, new.currency, new.status, new.amount, new.captured, new.placed_at,
    new.expires_at, new.reference, new.metadata::json
FROM unnest(
    $3::uuid[], $4::bigint[], $5::uuid[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::timestamptz[],
    $11::timestamptz[], $12::text[], $13::text[]
) AS new(account_id, version, hold_id, currency, status, amount, captured, placed_at, expires_at, reference, metadata)
WHERE NOT EXISTS (
    SELECT FROM unnest($14::uuid[], $15::bigint[]) AS updated(account_id, version)
    WHERE updated.account_id = new.account_id AND updated.version = new.version
)
