-- The holds can be long and are read by holds.sql. The metadata of the opening never changes, so the projection does not need it.
SELECT
    view.account_id,
    view.owner,
    view.currency,
    view.status,
    view.balance,
    view.limits AS "limits?: Json<Limits>",
    view.usage AS "usage?: Json<Usage>",
    octet_length(view.holds::text) AS holds_bytes,
    view.version,
    view.transaction_count,
    view.opened_at,
    view.last_activity_at,
    view.closed_at
FROM unnest($3::uuid[]) AS wanted(account_id)
CROSS JOIN LATERAL (
    SELECT account_view.*
    FROM account_view
    WHERE account_view.partition = $1
      AND account_view.generation = $2
      AND account_view.account_id = wanted.account_id
    LIMIT 1
) AS view
