INSERT INTO account_view (
    partition, generation, account_id, owner, currency, status, balance, version, transaction_count, opened_at,
    last_activity_at, closed_at
)
SELECT $1, $2, changed.*
FROM unnest(
    $3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[], $10::timestamptz[],
    $11::timestamptz[], $12::timestamptz[]
) AS changed
ON CONFLICT (partition, generation, account_id) DO UPDATE SET
    status = EXCLUDED.status,
    balance = EXCLUDED.balance,
    version = EXCLUDED.version,
    transaction_count = EXCLUDED.transaction_count,
    last_activity_at = EXCLUDED.last_activity_at,
    closed_at = EXCLUDED.closed_at
