-- As upsert.sql, for the rows that exist.
UPDATE account_view AS view SET
    status = new.status,
    balance = new.balance,
    version = new.version,
    transaction_count = new.transaction_count,
    last_activity_at = new.last_activity_at,
    closed_at = new.closed_at,
    limits = new.limits::json,
    usage = new.usage::json,
    -- Null: no event of the batch has changed a hold.
    holds = coalesce(new.holds::json, view.holds)
FROM unnest(
    $3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[], $10::timestamptz[],
    $11::timestamptz[], $12::timestamptz[], $13::text[], $14::text[], $15::text[], $16::text[]
) AS new(
    account_id, owner, currency, status, balance, version, transaction_count, opened_at, last_activity_at, closed_at, limits, usage,
    metadata, holds
)
WHERE view.partition = $1 AND view.generation = $2 AND view.account_id = new.account_id
RETURNING view.account_id
