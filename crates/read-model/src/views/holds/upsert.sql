-- Arrays are unnested in the select list, which yields rows one by one; in FROM each array would be materialized first.
INSERT INTO account_hold (
    partition, generation, account_id, version, hold_id, currency, status, amount, captured, placed_at, expires_at, reference,
    metadata
)
SELECT
    $1,
    $2,
    unnest($3::uuid[]),
    unnest($4::bigint[]),
    unnest($5::uuid[]),
    unnest($6::text[]),
    unnest($7::text[]),
    unnest($8::bigint[]),
    unnest($9::bigint[]),
    unnest($10::timestamptz[]),
    unnest($11::timestamptz[]),
    unnest($12::text[]),
    unnest($13::text[])::json
ON CONFLICT (partition, generation, account_id, version) DO UPDATE SET
    status = EXCLUDED.status,
    captured = EXCLUDED.captured
