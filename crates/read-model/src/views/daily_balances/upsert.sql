-- Arrays are unnested in the select list, which yields rows one by one; in FROM each array would be materialized first.
INSERT INTO daily_balance (
    partition, generation, account_id, day, opening, money_in, money_out, closing, count
)
SELECT
    $1,
    $2,
    unnest($3::uuid[]),
    unnest($4::date[]),
    unnest($5::bigint[]),
    unnest($6::text[])::numeric,
    unnest($7::text[])::numeric,
    unnest($8::bigint[]),
    unnest($9::bigint[])
ON CONFLICT (partition, generation, account_id, day) DO UPDATE SET
    money_in = EXCLUDED.money_in,
    money_out = EXCLUDED.money_out,
    closing = EXCLUDED.closing,
    count = EXCLUDED.count
