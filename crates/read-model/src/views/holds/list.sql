SELECT
    projection.position,
    projection.generation,
    greatest(statement_timestamp(), log_head.recorded_at) AS "now?",
    view.account_id AS "account_id?",
    view.version AS "version?",
    view.hold_id AS "hold_id?",
    view.currency AS "currency?",
    view.status AS "status?",
    view.amount AS "amount?",
    view.captured AS "captured?",
    view.placed_at AS "placed_at?",
    view.expires_at AS "expires_at?",
    view.reference AS "reference?",
    view.metadata AS "metadata?: Json<Metadata>"
FROM projection
JOIN log_head ON log_head.partition = $1
LEFT JOIN LATERAL (
    SELECT account_hold.*
    FROM account_hold
    WHERE account_hold.partition = $1
      AND account_hold.generation = projection.generation
      AND account_hold.account_id = $2
      AND account_hold.version < $3
    ORDER BY account_hold.version DESC
    LIMIT $4
) AS view ON true
WHERE projection.partition = $1 AND projection.name = 'holds' AND projection.state = 'live'
ORDER BY view.version DESC
