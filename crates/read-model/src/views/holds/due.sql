-- Decisions use the database's clock and are never earlier than the head of the log, so holds that are over at that time are due.
SELECT due.account_id
FROM projection
JOIN log_head ON log_head.partition = $1
CROSS JOIN LATERAL (
    SELECT account_hold.account_id, account_hold.expires_at
    FROM account_hold
    WHERE account_hold.partition = $1
      AND account_hold.generation = projection.generation
      AND account_hold.status = 'active'
      AND account_hold.amount > 0
      AND account_hold.expires_at <= greatest(statement_timestamp(), log_head.recorded_at)
    ORDER BY account_hold.expires_at
    LIMIT $2
) AS due
WHERE projection.partition = $1 AND projection.name = 'holds' AND projection.state = 'live'
ORDER BY due.expires_at
