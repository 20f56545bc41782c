-- The state comes from the history's row of version $4 or the last one before it; owner, currency and opening never change. $5 is
-- the checkpoint at which the version was read.
SELECT
    least(projection.position, accounts.position, $5::bigint) AS "position!",
    -- Increases when either view is rebuilt, because the result depends on both.
    (projection.generation + accounts.generation - 1)::smallint AS "generation!",
    projection.schema_version,
    -- The holds count as they did at the named time, or when the named version was recorded.
    coalesce($3::timestamptz, moment.recorded_at) AS "now?",
    account.account_id AS "account_id?",
    account.owner AS "owner?",
    account.currency AS "currency?",
    moment.status AS "status?",
    moment.balance_after AS "balance?",
    CASE WHEN moment.overdraft > 0 THEN json_build_object('overdraft', moment.overdraft) END AS "limits?: Json<Limits>",
    NULL::json AS "usage?: Json<Usage>",
    held.holds AS "holds?: Json<Holds>",
    account.metadata AS "metadata?: Json<Metadata>",
    moment.version AS "version?",
    moment.transaction_count AS "transaction_count?",
    account.opened_at AS "opened_at?",
    moment.recorded_at AS "last_activity_at?",
    CASE moment.status WHEN 'closed' THEN moment.recorded_at END AS "closed_at?"
FROM projection
JOIN projection AS accounts
    ON accounts.partition = $1 AND accounts.name = 'accounts' AND accounts.state = 'live'
LEFT JOIN LATERAL (
    SELECT entry.*
    FROM account_transaction AS entry
    WHERE entry.partition = $1
      AND entry.generation = projection.generation
      AND entry.account_id = $2
      AND entry.version <= $4::bigint
    ORDER BY entry.version DESC
    LIMIT 1
) AS moment ON true
LEFT JOIN LATERAL (
    SELECT entry.holds
    FROM account_transaction AS entry
    WHERE entry.partition = $1
      AND entry.generation = projection.generation
      AND entry.account_id = $2
      AND entry.version = moment.holds_version
    LIMIT 1
) AS held ON true
LEFT JOIN LATERAL (
    SELECT account_view.*
    FROM account_view
    WHERE account_view.partition = $1
      AND account_view.generation = accounts.generation
      AND account_view.account_id = moment.account_id
    LIMIT 1
) AS account ON true
WHERE projection.partition = $1
  AND projection.name = 'transactions'
  AND projection.state = 'live'
  AND projection.schema_version >= 3
