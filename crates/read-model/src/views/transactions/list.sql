-- Scans at most $8 versions below $3, the newest first, of those after version $4 up to $5 (null: the newest). A version is one
-- row, so the scan is a range of the key. $9 is the checkpoint at which $4 and $5 were read.
SELECT
    least(projection.position, $9::bigint) AS "position!",
    projection.generation,
    greatest($4::bigint, least($3::bigint - 1, coalesce($5::bigint, newest.version, 0)) - $8::bigint) AS "scanned_above!",
    least($3::bigint - 1, coalesce($5::bigint, newest.version, 0)) - $8::bigint > $4::bigint AS "has_unscanned!",
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
    view.recorded_at AS "recorded_at?",
    view.event_id AS "event_id?"
FROM projection
LEFT JOIN LATERAL (
    SELECT entry.version
    FROM account_transaction AS entry
    WHERE entry.partition = $1
      AND entry.generation = projection.generation
      AND entry.account_id = $2
    ORDER BY entry.version DESC
    LIMIT 1
) AS newest ON $5::bigint IS NULL
LEFT JOIN LATERAL (
    SELECT movement.*
    FROM account_transaction AS movement
    WHERE movement.partition = $1
      AND movement.generation = projection.generation
      AND movement.account_id = $2
      AND movement.version > greatest($4::bigint, least($3::bigint - 1, coalesce($5::bigint, newest.version, 0)) - $8::bigint)
      AND movement.version <= least($3::bigint - 1, coalesce($5::bigint, newest.version, 0))
      AND movement.amount > 0
      AND ($6::text IS NULL OR movement.kind = $6)
      AND ($10::text IS NULL OR starts_with(fold_case(movement.reference), fold_case($10)))
      AND ($11::bigint IS NULL OR movement.amount >= $11)
      AND ($12::bigint IS NULL OR movement.amount <= $12)
    ORDER BY movement.version DESC
    LIMIT $7
) AS view ON true
-- The other account of a reversal is that of the transfer that it reverses.
LEFT JOIN LATERAL (
    SELECT movement.counterparty_account_id
    FROM account_transaction AS movement
    WHERE movement.partition = $1
      AND movement.generation = projection.generation
      AND movement.account_id = $2
      AND movement.version = view.reverses_version
    LIMIT 1
) AS original ON true
LEFT JOIN LATERAL (
    SELECT reversed_movement.reversed
    FROM reversed_movement
    WHERE reversed_movement.partition = $1
      AND reversed_movement.generation = projection.generation
      AND reversed_movement.account_id = $2
      AND reversed_movement.version = view.version
    LIMIT 1
) AS later ON true
WHERE projection.partition = $1 AND projection.name = 'transactions' AND projection.state = 'live'
ORDER BY view.version DESC
