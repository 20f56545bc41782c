-- Arrays are unnested in the select list, which yields rows one by one; in FROM each array would be materialized first. An array that
-- ends before the others continues with nulls, so a column without values is an empty array.
INSERT INTO account_transaction (
    partition, generation, account_id, version, kind, amount, balance_after, transfer_id, counterparty_account_id,
    reference, recorded_at, event_id, status, transaction_count, hold_id, reverses_version, channel, metadata, overdraft,
    holds_version, holds
)
SELECT
    $1,
    $2,
    unnest($3::uuid[]),
    unnest($4::bigint[]),
    unnest($5::text[]),
    unnest($6::bigint[]),
    unnest($7::bigint[]),
    unnest($8::uuid[]),
    unnest($9::uuid[]),
    unnest($10::text[]),
    unnest($11::timestamptz[]),
    unnest($12::uuid[]),
    unnest($13::text[]),
    unnest($14::bigint[]),
    unnest($15::uuid[]),
    unnest($16::bigint[]),
    unnest($17::text[]),
    unnest($18::text[])::json,
    unnest($19::bigint[]),
    unnest($20::bigint[]),
    unnest($21::text[])::json
