SELECT
    account_id,
    version,
    hold_id,
    currency,
    status,
    amount,
    captured,
    placed_at,
    expires_at,
    reference,
    metadata AS "metadata?: Json<Metadata>"
FROM account_hold
WHERE partition = $1 AND generation = $2 AND ($3::uuid[] IS NULL OR account_id = ANY($3))
