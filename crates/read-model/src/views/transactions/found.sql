-- As recent.sql, for the rows with the keys $11 and $12 alone, which were found at the checkpoint $4. All of them are read.
SELECT
    least(projection.position, accounts.position, $4::bigint) AS "position!",
    projection.generation,
    view.event_position AS "event_position?",
    view.account_id AS "account_id?",
    view.version AS "version?",
    view.kind AS "kind?",
    view.amount AS "amount?",
    view.balance_after AS "balance_after?",
    view.transfer_id AS "transfer_id?",
    coalesce(view.counterparty_account_id, original.counterparty_account_id) AS "counterparty_account_id?",
    view.hold_id AS "hold_id?",
    view.reverses_version AS "reverses_version?",
    coalesce(later.reversed, 0) AS "reversed!",
    view.reference AS "reference?",
    view.channel AS "channel?",
    view.metadata AS "metadata?: Json<Metadata>",
    view.event_recorded_at AS "recorded_at?",
    view.event_id AS "event_id?",
    view.is_match AS "is_match?",
    view.is_scan_end AS "is_scan_end?"
FROM projection
JOIN projection AS accounts
    ON accounts.partition = $1 AND accounts.name = 'accounts' AND accounts.state = 'live'
LEFT JOIN LATERAL (
    SELECT
        movement.*,
        recorded.position AS event_position,
        movement.recorded_at AS event_recorded_at,
        true AS is_match,
        false AS is_scan_end
    FROM unnest($11::uuid[], $12::bigint[]) AS wanted(account_id, version)
    CROSS JOIN LATERAL (
        SELECT account_transaction.*
        FROM account_transaction
        WHERE account_transaction.partition = $1
          AND account_transaction.generation = projection.generation
          AND account_transaction.account_id = wanted.account_id
          AND account_transaction.version = wanted.version
        LIMIT 1
    ) AS movement
    CROSS JOIN LATERAL (
        SELECT event.position
        FROM event
        WHERE event.partition = $1
          AND event.stream_id = wanted.account_id
          AND event.version = wanted.version
        LIMIT 1
    ) AS recorded
    LEFT JOIN LATERAL (
        SELECT account_view.owner, account_view.currency
        FROM account_view
        WHERE account_view.partition = $1
          AND account_view.generation = accounts.generation
          AND account_view.account_id = movement.account_id
        LIMIT 1
    ) AS account ON $9::text IS NOT NULL OR $10::text IS NOT NULL
    WHERE recorded.position < $2
      AND recorded.position > $3
      AND movement.amount > 0
      AND ($6::bigint IS NULL OR movement.amount >= $6)
      AND ($7::bigint IS NULL OR movement.amount <= $7)
      AND ($8::text IS NULL OR starts_with(fold_case(movement.reference), fold_case($8)))
      AND ($9::text IS NULL OR account.owner = $9)
      AND ($10::text IS NULL OR account.currency = $10)
    ORDER BY recorded.position DESC
    LIMIT $5
) AS view ON true
-- The other account of a reversal is that of the transfer that it reverses.
LEFT JOIN LATERAL (
    SELECT movement.counterparty_account_id
    FROM account_transaction AS movement
    WHERE movement.partition = $1
      AND movement.generation = projection.generation
      AND movement.account_id = view.account_id
      AND movement.version = view.reverses_version
    LIMIT 1
) AS original ON true
LEFT JOIN LATERAL (
    SELECT reversed_movement.reversed
    FROM reversed_movement
    WHERE reversed_movement.partition = $1
      AND reversed_movement.generation = projection.generation
      AND reversed_movement.account_id = view.account_id
      AND reversed_movement.version = view.version
    LIMIT 1
) AS later ON true
WHERE projection.partition = $1 AND projection.name = 'transactions' AND projection.state = 'live'
ORDER BY view.event_position DESC
