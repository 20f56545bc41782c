-- As recent.sql, for the accounts $8 alone, which were found at the checkpoint $2. Of each account, it scans at most $3 versions
-- above $9 up to $10. Only the newest $4 rows of all accounts can be in the page, so only these are looked up in the log. Several can
-- be recorded at the same time.
SELECT
    least(projection.position, accounts.position, $2::bigint) AS "position!",
    projection.generation,
    view.event_position AS "event_position?",
    view.account_id AS "account_id?",
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
    view.event_recorded_at AS "recorded_at?",
    view.event_id AS "event_id?",
    view.is_match AS "is_match?",
    view.is_scan_end AS "is_scan_end?"
FROM projection
JOIN projection AS accounts
    ON accounts.partition = $1 AND accounts.name = 'accounts' AND accounts.state = 'live'
LEFT JOIN LATERAL (
    SELECT
        newest.*,
        recorded.position AS event_position,
        newest.recorded_at AS event_recorded_at
    FROM (
        SELECT movement.*, rank() OVER (ORDER BY movement.recorded_at DESC) AS place
        FROM unnest($8::uuid[], $9::bigint[], $10::bigint[]) AS wanted(account_id, above, last)
        CROSS JOIN LATERAL (
            SELECT scanned.*, matched.is_match, scanned.number = $3 AS is_scan_end
            FROM (
                SELECT
                    account_transaction.*,
                    row_number() OVER (ORDER BY account_transaction.version DESC) AS number
                FROM account_transaction
                WHERE account_transaction.partition = $1
                  AND account_transaction.generation = projection.generation
                  AND account_transaction.account_id = wanted.account_id
                  AND account_transaction.version > wanted.above
                  AND account_transaction.version <= wanted.last
                ORDER BY account_transaction.version DESC
                LIMIT $3
            ) AS scanned
            CROSS JOIN LATERAL (
                SELECT
                    scanned.amount > 0
                    AND ($5::bigint IS NULL OR scanned.amount >= $5)
                    AND ($6::bigint IS NULL OR scanned.amount <= $6)
                    AND ($7::text IS NULL OR starts_with(fold_case(scanned.reference), fold_case($7))) AS is_match
            ) AS matched
            WHERE matched.is_match OR scanned.number = $3
            ORDER BY scanned.version DESC
            LIMIT $4
        ) AS movement
    ) AS newest
    CROSS JOIN LATERAL (
        SELECT event.position
        FROM event
        WHERE event.partition = $1
          AND event.stream_id = newest.account_id
          AND event.version = newest.version
        LIMIT 1
    ) AS recorded
    WHERE newest.place <= $4
    ORDER BY recorded.position DESC
    LIMIT $4
) AS view ON true
-- The other account of a reversal is that of the transfer that it reverses.
LEFT JOIN LATERAL (
    SELECT movement.counterparty_account_id
    FROM account_transaction AS movement
    WHERE movement.partition = $1
      AND movement.generation = projection.generation
      AND movement.account_id = view.account_id
      AND movement.version = view.reverses_version
    LIMIT 1
) AS original ON true
LEFT JOIN LATERAL (
    SELECT reversed_movement.reversed
    FROM reversed_movement
    WHERE reversed_movement.partition = $1
      AND reversed_movement.generation = projection.generation
      AND reversed_movement.account_id = view.account_id
      AND reversed_movement.version = view.version
    LIMIT 1
) AS later ON true
WHERE projection.partition = $1 AND projection.name = 'transactions' AND projection.state = 'live'
ORDER BY view.event_position DESC
