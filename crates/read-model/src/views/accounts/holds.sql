SELECT
    view.account_id,
    view.holds AS "holds!: Json<Holds>"
FROM unnest($3::uuid[]) AS wanted(account_id)
CROSS JOIN LATERAL (
    SELECT account_view.account_id, account_view.holds
    FROM account_view
    WHERE account_view.partition = $1
      AND account_view.generation = $2
      AND account_view.account_id = wanted.account_id
    LIMIT 1
) AS view
