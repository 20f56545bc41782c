-- Scans at most $8 versions below $3, the newest first. A version is one row, so the scan is a range of the key.
SELECT
    projection.position,
    projection.generation,
    scan.above AS "scanned_above!",
    scan.above > period.above AS "has_unscanned!",
    view.version AS "version?",
    view.kind AS "kind?",
    view.amount AS "amount?",
    view.balance_after AS "balance_after?",
    view.transfer_id AS "transfer_id?",
    coalesce(view.counterparty_account_id, original.counterparty_account_id) AS "counterparty_account_id?",
    view.hold_id AS "hold_id?",
    view.reverses_version AS "reverses_version?",
    coalesce(later.reversed, 0) AS "reversed!",
    view.reference AS "reference?",
    view.channel AS "channel?",
    view.metadata AS "metadata?: Json<Metadata>",
    view.recorded_at AS "recorded_at?",
    view.event_id AS "event_id?"
FROM projection
CROSS JOIN LATERAL (
    -- Times never decrease with the version, so a range of times is a range of versions.
    SELECT
        CASE WHEN $4::timestamptz IS NULL THEN 0
            ELSE version_at($1, projection.generation, $2, $4 - interval '1 microsecond') END AS above,
        least($3::bigint - 1, CASE WHEN $5::timestamptz IS NULL THEN coalesce((
            SELECT newest.version
            FROM account_transaction AS newest
            WHERE newest.partition = projection.partition
              AND newest.generation = projection.generation
              AND newest.account_id = $2
            ORDER BY newest.version DESC
            LIMIT 1
        ), 0) ELSE version_at($1, projection.generation, $2, $5 - interval '1 microsecond') END) AS last
    -- LIMIT keeps the planner from inlining the subquery, which would call version_at at each use.
    LIMIT 1
) AS period
CROSS JOIN LATERAL (
    SELECT greatest(period.above, period.last - $8::bigint) AS above
    LIMIT 1
) AS scan
LEFT JOIN LATERAL (
    SELECT movement.*
    FROM account_transaction AS movement
    WHERE movement.partition = projection.partition
      AND movement.generation = projection.generation
      AND movement.account_id = $2
      AND movement.version > scan.above
      AND movement.version <= period.last
      AND movement.amount > 0
      AND ($6::text IS NULL OR movement.kind = $6)
    ORDER BY movement.version DESC
    LIMIT $7
) AS view ON true
-- The other account of a reversal is that of the transfer that it reverses.
LEFT JOIN LATERAL (
    SELECT movement.counterparty_account_id
    FROM account_transaction AS movement
    WHERE movement.partition = projection.partition
      AND movement.generation = projection.generation
      AND movement.account_id = $2
      AND movement.version = view.reverses_version
    LIMIT 1
) AS original ON true
LEFT JOIN LATERAL (
    SELECT reversed_movement.reversed
    FROM reversed_movement
    WHERE reversed_movement.partition = projection.partition
      AND reversed_movement.generation = projection.generation
      AND reversed_movement.account_id = $2
      AND reversed_movement.version = view.version
    LIMIT 1
) AS later ON true
WHERE projection.partition = $1 AND projection.name = 'transactions' AND projection.state = 'live'
ORDER BY view.version DESC
