-- The next rows of a history. Another generation may be live than at the previous page; its rows are the same.
SELECT
    entry.version AS "version!",
    entry.kind AS "kind!",
    entry.amount AS "amount!",
    entry.balance_after AS "balance_after!",
    entry.transfer_id,
    coalesce(entry.counterparty_account_id, original.counterparty_account_id) AS "counterparty_account_id?",
    entry.hold_id,
    entry.reverses_version,
    -- A statement stays as it was, whatever is reversed later.
    NULL::bigint AS reversed,
    entry.reference,
    entry.channel,
    entry.metadata AS "metadata?: Json<Metadata>",
    entry.recorded_at AS "recorded_at!",
    entry.event_id AS "event_id!"
FROM projection
CROSS JOIN LATERAL (
    SELECT movement.*
    FROM account_transaction AS movement
    WHERE movement.partition = $1
      AND movement.generation = projection.generation
      AND movement.account_id = $2
      AND movement.version > $3
      AND movement.version <= $4
    ORDER BY movement.version
    LIMIT $5
) AS entry
-- The other account of a reversal is that of the transfer that it reverses.
LEFT JOIN LATERAL (
    SELECT movement.counterparty_account_id
    FROM account_transaction AS movement
    WHERE movement.partition = $1
      AND movement.generation = projection.generation
      AND movement.account_id = $2
      AND movement.version = entry.reverses_version
    LIMIT 1
) AS original ON true
WHERE projection.partition = $1
  AND projection.name = 'transactions'
  AND projection.state = 'live'
  AND projection.schema_version >= 3
ORDER BY entry.version
