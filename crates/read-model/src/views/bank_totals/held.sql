-- What active holds of each currency set aside: the holds without a recorded end, less those of them that are over. Few holds are
-- over without a recorded end, so the statement reads few of them, and each once.
SELECT
    projection.position,
    projection.generation,
    total.currency AS "currency?",
    total.held::text AS "held?: MoneySum"
FROM projection
JOIN log_head ON log_head.partition = $1
LEFT JOIN LATERAL (
    SELECT part.currency, sum(part.held) AS held
    FROM (
        SELECT held_total.currency, held_total.held
        FROM held_total
        WHERE held_total.partition = $1
          AND held_total.generation = projection.generation
        UNION ALL
        SELECT account_hold.currency, (account_hold.captured - account_hold.amount)::numeric AS held
        FROM account_hold
        WHERE account_hold.partition = $1
          AND account_hold.generation = projection.generation
          AND account_hold.status = 'active'
          AND account_hold.amount > 0
          AND account_hold.expires_at <= greatest(statement_timestamp(), log_head.recorded_at)
    ) AS part
    GROUP BY part.currency
) AS total ON true
WHERE projection.partition = $1 AND projection.name = 'holds' AND projection.state = 'live'
