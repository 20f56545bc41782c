-- At most $4 accounts whose owner begins with $2, in any case. The index has the first 64 characters of an owner, and $3 is greater
-- than any character.
SELECT
    projection.position,
    found.account_id AS "account_id?"
FROM projection
LEFT JOIN LATERAL (
    SELECT account_view.account_id
    FROM account_view
    WHERE account_view.partition = $1
      AND account_view.generation = projection.generation
      AND account_view.generation > 0
      AND (fold_case(left(account_view.owner, 64)) COLLATE "C") >= fold_case(left($2, 64))
      AND (fold_case(left(account_view.owner, 64)) COLLATE "C") < fold_case(left($2, 64)) || $3
    ORDER BY fold_case(left(account_view.owner, 64)) COLLATE "C"
    LIMIT $4
) AS found ON true
WHERE projection.partition = $1 AND projection.name = 'accounts' AND projection.state = 'live'
