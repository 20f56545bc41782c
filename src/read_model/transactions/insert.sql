INSERT INTO account_transaction (
    partition, generation, account_id, version, kind, amount, balance_after, transfer_id, counterparty_account_id,
    reference, recorded_at, event_id
)
SELECT $1, $2, movement.*
FROM unnest(
    $3::uuid[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[], $8::uuid[], $9::uuid[], $10::text[],
    $11::timestamptz[], $12::uuid[]
) AS movement
