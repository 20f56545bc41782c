-- The rows that update.sql has not updated ($17).
INSERT INTO account_view (
    partition, generation, account_id, owner, currency, status, balance, version, transaction_count, opened_at,
    last_activity_at, closed_at, limits, usage, metadata, holds
)
SELECT
    $1, $2, new.account_id, new.owner, new.currency, new.status, new.balance, new.version, new.transaction_count, new.opened_at,
    new.last_activity_at, new.closed_at, new.limits::json, new.usage::json, new.metadata::json, new.holds::json
FROM unnest(
    $3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[], $10::timestamptz[],
    $11::timestamptz[], $12::timestamptz[], $13::text[], $14::text[], $15::text[], $16::text[]
) AS new(
    account_id, owner, currency, status, balance, version, transaction_count, opened_at, last_activity_at, closed_at, limits, usage,
    metadata, holds
)
WHERE new.account_id <> ALL ($17::uuid[])
