SELECT
    movement.account_id,
    movement.holds AS "holds!: Json<Holds>"
FROM unnest($3::uuid[], $4::bigint[]) AS wanted(account_id, version)
CROSS JOIN LATERAL (
    SELECT row.account_id, row.holds
    FROM account_transaction AS row
    WHERE row.partition = $1
      AND row.generation = $2
      AND row.account_id = wanted.account_id
      AND row.version = wanted.version
    LIMIT 1
) AS movement
