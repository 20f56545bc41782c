SELECT
    projection.position,
    projection.generation,
    view.version AS "version?",
    view.kind AS "kind?",
    view.amount AS "amount?",
    view.balance_after AS "balance_after?",
    view.transfer_id AS "transfer_id?",
    view.counterparty_account_id AS "counterparty_account_id?",
    view.reference AS "reference?",
    view.recorded_at AS "recorded_at?",
    view.event_id AS "event_id?"
FROM projection
LEFT JOIN LATERAL (
    SELECT movement.*
    FROM account_transaction AS movement
    WHERE movement.partition = projection.partition
      AND movement.generation = projection.generation
      AND movement.account_id = $2
      -- Times never decrease with the version, so a range of times is a range of versions.
      AND movement.version > CASE WHEN $4::timestamptz IS NULL THEN 0
          ELSE version_at($1, projection.generation, $2, $4 - interval '1 microsecond') END
      AND movement.version <= least(
          $3::bigint - 1,
          CASE WHEN $5::timestamptz IS NULL THEN NULL
          ELSE version_at($1, projection.generation, $2, $5 - interval '1 microsecond') END
      )
      AND movement.amount > 0
      AND ($6::text IS NULL OR movement.kind = $6)
    ORDER BY movement.version DESC
    LIMIT $7
) AS view ON true
WHERE projection.partition = $1 AND projection.name = 'transactions' AND projection.state = 'live'
ORDER BY view.version DESC
