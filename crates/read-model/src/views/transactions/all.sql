SELECT
    account_id,
    version,
    kind,
    amount,
    balance_after,
    transfer_id,
    counterparty_account_id,
    hold_id,
    reverses_version,
    reference,
    channel,
    metadata AS "metadata?: Json<Metadata>",
    recorded_at,
    event_id,
    status,
    transaction_count,
    overdraft,
    holds_version,
    holds::text AS "holds?"
FROM account_transaction
WHERE partition = $1 AND generation = $2 AND ($3::uuid[] IS NULL OR account_id = ANY($3))
