SELECT
    account_id,
    version,
    kind,
    amount,
    balance_after,
    transfer_id,
    counterparty_account_id,
    reference,
    recorded_at,
    event_id,
    status,
    transaction_count
FROM account_transaction
WHERE partition = $1 AND generation = $2 AND ($3::uuid[] IS NULL OR account_id = ANY($3))
