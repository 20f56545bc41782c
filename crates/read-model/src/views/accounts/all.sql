SELECT
    account_id,
    owner,
    currency,
    status,
    balance,
    limits AS "limits?: Json<Limits>",
    usage AS "usage?: Json<Usage>",
    holds AS "holds?: Json<Holds>",
    metadata AS "metadata?: Json<Metadata>",
    version,
    transaction_count,
    opened_at,
    last_activity_at,
    closed_at
FROM account_view
WHERE partition = $1 AND generation = $2 AND ($3::uuid[] IS NULL OR account_id = ANY($3))
