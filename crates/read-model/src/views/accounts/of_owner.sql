SELECT
    projection.position,
    projection.generation,
    view.account_id AS "account_id?",
    view.owner AS "owner?",
    view.currency AS "currency?",
    view.status AS "status?",
    view.balance AS "balance?",
    view.version AS "version?",
    view.transaction_count AS "transaction_count?",
    view.opened_at AS "opened_at?",
    view.last_activity_at AS "last_activity_at?",
    view.closed_at AS "closed_at?"
FROM projection
LEFT JOIN LATERAL (
    SELECT account_view.*
    FROM account_view
    WHERE account_view.partition = projection.partition
      AND account_view.generation = projection.generation
      AND account_view.generation > 0
      AND account_view.owner = $7
      AND ($2::text IS NULL OR account_view.status = $2)
      AND ($3::text IS NULL OR account_view.currency = $3)
      AND (account_view.opened_at, account_view.account_id) < (coalesce($4, 'infinity'::timestamptz), coalesce($5::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
    ORDER BY account_view.opened_at DESC, account_view.account_id DESC
    LIMIT $6
) AS view ON true
WHERE projection.partition = $1 AND projection.name = 'accounts' AND projection.state = 'live'
ORDER BY view.opened_at DESC, view.account_id DESC
