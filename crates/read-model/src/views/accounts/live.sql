SELECT
    projection.position,
    projection.generation,
    projection.schema_version,
    greatest(statement_timestamp(), log_head.recorded_at) AS "now?",
    view.account_id AS "account_id?",
    view.owner AS "owner?",
    view.currency AS "currency?",
    view.status AS "status?",
    view.balance AS "balance?",
    view.limits AS "limits?: Json<Limits>",
    view.usage AS "usage?: Json<Usage>",
    view.holds AS "holds?: Json<Holds>",
    view.metadata AS "metadata?: Json<Metadata>",
    view.version AS "version?",
    view.transaction_count AS "transaction_count?",
    view.opened_at AS "opened_at?",
    view.last_activity_at AS "last_activity_at?",
    view.closed_at AS "closed_at?"
FROM projection
JOIN log_head ON log_head.partition = $1
CROSS JOIN unnest($2::uuid[]) AS wanted(account_id)
LEFT JOIN LATERAL (
    SELECT account_view.*
    FROM account_view
    WHERE account_view.partition = $1
      AND account_view.generation = projection.generation
      AND account_view.account_id = wanted.account_id
    LIMIT 1
) AS view ON true
WHERE projection.partition = $1 AND projection.name = 'accounts' AND projection.state = 'live'
