-- At most $3 accounts of one owner, the newest first.
SELECT
    projection.position,
    found.account_id AS "account_id?",
    found.currency AS "currency?"
FROM projection
LEFT JOIN LATERAL (
    SELECT account_view.account_id, account_view.currency
    FROM account_view
    WHERE account_view.partition = $1
      AND account_view.generation = projection.generation
      AND account_view.generation > 0
      -- One value of the key, as a range that fits no other index.
      AND account_view.owner >= $2
      AND account_view.owner <= $2
    ORDER BY account_view.owner DESC, account_view.opened_at DESC, account_view.account_id DESC
    LIMIT $3
) AS found ON true
WHERE projection.partition = $1 AND projection.name = 'accounts' AND projection.state = 'live'
