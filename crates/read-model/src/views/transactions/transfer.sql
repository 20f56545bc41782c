SELECT
    least(projection.position, accounts.position) AS "position!",
    projection.generation,
    sent.transfer_id AS "transfer_id?",
    sent.account_id AS "from?",
    sent.counterparty_account_id AS "to?",
    sent.amount AS "amount?",
    sender.currency AS "currency?",
    sent.reference AS "reference?",
    coalesce(later.reversed, 0) AS "reversed!",
    sent.recorded_at AS "recorded_at?"
FROM projection
JOIN projection AS accounts
    ON accounts.partition = $1 AND accounts.name = 'accounts' AND accounts.state = 'live'
LEFT JOIN LATERAL (
    SELECT movement.*
    FROM account_transaction AS movement
    WHERE movement.partition = $1
      AND movement.generation = projection.generation
      AND movement.transfer_id = $2
      AND movement.kind = 'transfer_out'
    LIMIT 1
) AS sent ON true
LEFT JOIN LATERAL (
    SELECT reversed_movement.reversed
    FROM reversed_movement
    WHERE reversed_movement.partition = $1
      AND reversed_movement.generation = projection.generation
      AND reversed_movement.account_id = sent.account_id
      AND reversed_movement.version = sent.version
    LIMIT 1
) AS later ON true
LEFT JOIN LATERAL (
    SELECT account_view.currency
    FROM account_view
    WHERE account_view.partition = $1
      AND account_view.generation = accounts.generation
      AND account_view.account_id = sent.account_id
    LIMIT 1
) AS sender ON true
WHERE projection.partition = $1 AND projection.name = 'transactions' AND projection.state = 'live'
