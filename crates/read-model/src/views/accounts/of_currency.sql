-- As list.sql, for the accounts in one currency.
SELECT
    projection.position,
    projection.generation,
    projection.schema_version,
    greatest(statement_timestamp(), log_head.recorded_at) AS "now?",
    view.account_id AS "account_id?",
    view.owner AS "owner?",
    view.currency AS "currency?",
    view.status AS "status?",
    view.balance AS "balance?",
    view.limits AS "limits?: Json<Limits>",
    view.usage AS "usage?: Json<Usage>",
    view.holds AS "holds?: Json<Holds>",
    view.metadata AS "metadata?: Json<Metadata>",
    view.version AS "version?",
    view.transaction_count AS "transaction_count?",
    view.opened_at AS "opened_at?",
    view.last_activity_at AS "last_activity_at?",
    view.closed_at AS "closed_at?",
    view.is_match AS "is_match?",
    view.is_scan_end AS "is_scan_end?"
FROM projection
JOIN log_head ON log_head.partition = $1
LEFT JOIN LATERAL (
    SELECT scanned.*, matched.is_match, scanned.number = $7 AS is_scan_end
    FROM (
        SELECT
            account_view.*,
            row_number() OVER (ORDER BY account_view.currency DESC, account_view.opened_at DESC, account_view.account_id DESC) AS number
        FROM account_view
        WHERE account_view.partition = $1
          AND account_view.generation = projection.generation
          AND account_view.generation > 0
          -- The range has one value of the key. Written as a range, it fits no other index.
          AND account_view.currency >= $13
          AND (account_view.currency, account_view.opened_at, account_view.account_id)
              < ($13, coalesce($4, 'infinity'::timestamptz), coalesce($5::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
        ORDER BY account_view.currency DESC, account_view.opened_at DESC, account_view.account_id DESC
        LIMIT $7
    ) AS scanned
    CROSS JOIN LATERAL (
        SELECT
            ($2::text IS NULL OR scanned.status = $2)
            AND ($3::text IS NULL OR scanned.currency = $3)
            AND ($8::bigint IS NULL OR scanned.balance >= $8)
            AND ($9::bigint IS NULL OR scanned.balance <= $9)
            AND (
                $10::text IS NULL
                OR starts_with(fold_case(scanned.owner), fold_case($10))
                OR strpos(replace(scanned.account_id::text, '-', ''), $11) > 0
            )
            AND ($12::text IS NULL OR scanned.metadata::jsonb @> $12::jsonb) AS is_match
    ) AS matched
    WHERE matched.is_match OR scanned.number = $7
    ORDER BY scanned.currency DESC, scanned.opened_at DESC, scanned.account_id DESC
    LIMIT $6
) AS view ON true
WHERE projection.partition = $1 AND projection.name = 'accounts' AND projection.state = 'live'
ORDER BY view.number
