-- The next $7 holds whose end is not recorded, after the hold of version $6 of account $5. An account has at most $4 of them.
SELECT
    hold.account_id,
    hold.version,
    hold.hold_id,
    hold.currency,
    hold.status,
    hold.amount,
    hold.captured,
    hold.placed_at,
    hold.expires_at,
    NULL::text AS reference,
    NULL::json AS "metadata?: Json<Metadata>"
FROM unnest($3::uuid[]) AS wanted(account_id)
CROSS JOIN LATERAL (
    SELECT account_hold.*
    FROM account_hold
    WHERE account_hold.partition = $1
      AND account_hold.generation = $2
      AND account_hold.generation > 0
      AND account_hold.status = 'active'
      AND account_hold.account_id = wanted.account_id
      AND account_hold.version > CASE WHEN wanted.account_id = $5::uuid THEN $6::bigint ELSE 0 END
    ORDER BY account_hold.version
    LIMIT $4
) AS hold
WHERE wanted.account_id >= $5::uuid
ORDER BY hold.account_id, hold.version
LIMIT $7
