-- The accounts of a status other than 'open' that match, by a sort key. Scans at most $7 of them; "is_cut" says whether there are more. Counts up to
-- $6 + 1 matches. The page has those after the key ($4, $5).
SELECT
    projection.position AS "position!",
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
    page.sort_key AS "sort_key?",
    page.matches AS "matches?",
    page.is_cut AS "is_cut?"
FROM projection
JOIN log_head ON log_head.partition = $1
LEFT JOIN LATERAL (
    SELECT sorted.*
    FROM (
        SELECT
            matching.account_id,
            matching.sort_key,
            count(*) FILTER (WHERE matching.number <= $7) OVER () AS matches,
            bool_or(matching.number > $7) OVER () AS is_cut
        FROM (
            SELECT
                scanned.account_id,
                scanned.number,
                CASE $14::text
                    WHEN 'balance' THEN scanned.balance
                    ELSE (extract(epoch FROM scanned.last_activity_at) * 1000000)::bigint
                END * $15::bigint AS sort_key
            FROM (
                SELECT
                    account_view.*,
                    row_number() OVER (ORDER BY account_view.status DESC, account_view.opened_at DESC, account_view.account_id DESC) AS number
                FROM account_view
                WHERE account_view.partition = $1
                  AND account_view.generation = projection.generation
                  AND account_view.generation > 0
                  AND account_view.status <> 'open'
                  -- One value of the key, as a range that fits no other index.
                  AND account_view.status >= $13
                  AND account_view.status <= $13
                ORDER BY account_view.status DESC, account_view.opened_at DESC, account_view.account_id DESC
                LIMIT $7::bigint + 1
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
            WHERE matched.is_match OR scanned.number > $7
            LIMIT $6::bigint + 1
        ) AS matching
    ) AS sorted
    WHERE sorted.is_cut OR (sorted.sort_key, sorted.account_id) > ($4::bigint, $5::uuid)
    ORDER BY sorted.sort_key, sorted.account_id
    LIMIT $16
) AS page ON true
LEFT JOIN LATERAL (
    SELECT account_view.*
    FROM account_view
    WHERE account_view.partition = $1
      AND account_view.generation = projection.generation
      AND account_view.account_id = page.account_id
    LIMIT 1
) AS view ON true
WHERE projection.partition = $1 AND projection.name = 'accounts' AND projection.state = 'live'
ORDER BY page.sort_key, page.account_id
