-- The status at the moment of the statement: a hold that is recorded as active is expired from its end on.
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
    SELECT hold.*
    FROM (
        (
            SELECT account_hold.*
            FROM account_hold
            WHERE account_hold.partition = $1
              AND account_hold.generation = projection.generation
              AND account_hold.generation > 0
              AND account_hold.status = $5
              AND account_hold.account_id = $2
              AND account_hold.version < $3
              AND ($5 <> 'active' OR account_hold.expires_at > greatest(statement_timestamp(), log_head.recorded_at))
            ORDER BY account_hold.version DESC
            LIMIT $4
        )
        UNION ALL
        (
            SELECT account_hold.*
            FROM account_hold
            WHERE account_hold.partition = $1
              AND account_hold.generation = projection.generation
              AND account_hold.generation > 0
              AND account_hold.status = 'active'
              AND account_hold.account_id = $2
              AND account_hold.version < $3
              AND $5 = 'expired'
              AND account_hold.expires_at <= greatest(statement_timestamp(), log_head.recorded_at)
            ORDER BY account_hold.version DESC
            LIMIT $4
        )
    ) AS hold
    ORDER BY hold.version DESC
    LIMIT $4
) AS view ON true
WHERE projection.partition = $1 AND projection.name = 'holds' AND projection.state = 'live'
ORDER BY view.version DESC
