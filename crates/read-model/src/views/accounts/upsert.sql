-- Arrays are unnested in the select list, which yields rows one by one; in FROM each array would be materialized first. An array that
-- ends before the others continues with nulls, so a column without values is an empty array.
INSERT INTO account_view (
    partition, generation, account_id, owner, currency, status, balance, version, transaction_count, opened_at,
    last_activity_at, closed_at, limits, usage, metadata, holds
)
SELECT
    $1,
    $2,
    unnest($3::uuid[]),
    unnest($4::text[]),
    unnest($5::text[]),
    unnest($6::text[]),
    unnest($7::bigint[]),
    unnest($8::bigint[]),
    unnest($9::bigint[]),
    unnest($10::timestamptz[]),
    unnest($11::timestamptz[]),
    unnest($12::timestamptz[]),
    unnest($13::text[])::json,
    unnest($14::text[])::json,
    unnest($15::text[])::json,
    unnest($16::text[])::json
ON CONFLICT (partition, generation, account_id) DO UPDATE SET
    status = EXCLUDED.status,
    balance = EXCLUDED.balance,
    version = EXCLUDED.version,
    transaction_count = EXCLUDED.transaction_count,
    last_activity_at = EXCLUDED.last_activity_at,
    closed_at = EXCLUDED.closed_at,
    limits = EXCLUDED.limits,
    usage = EXCLUDED.usage,
    -- Null: no event of the batch has changed a hold. A long list is stored outside of the row and is not written again.
    holds = coalesce(EXCLUDED.holds, account_view.holds)
