-- The versions within the period and the balances at its start and end, read at one moment.
SELECT
    projection.position AS "position!",
    projection.generation,
    opening.account_id AS "account_id?",
    account.currency AS "currency?",
    period.before AS "before!",
    period.last AS "last!",
    coalesce(before.balance_after, 0) AS "opening_balance!",
    coalesce(last.balance_after, 0) AS "closing_balance!"
FROM projection
JOIN projection AS accounts
    ON accounts.partition = projection.partition AND accounts.name = 'accounts' AND accounts.state = 'live'
CROSS JOIN LATERAL (
    -- Times are stored in microseconds: the last moment before a day is its start minus one microsecond.
    SELECT
        version_at($1, projection.generation, $2, $3::timestamptz - interval '1 microsecond') AS before,
        version_at($1, projection.generation, $2, $4::timestamptz - interval '1 microsecond') AS last
    -- LIMIT keeps the planner from inlining the subquery, which would call version_at at each use.
    LIMIT 1
) AS period
LEFT JOIN LATERAL (
    SELECT entry.account_id
    FROM account_transaction AS entry
    WHERE entry.partition = projection.partition
      AND entry.generation = projection.generation
      AND entry.account_id = $2
      AND entry.version = 1
    LIMIT 1
) AS opening ON true
LEFT JOIN LATERAL (
    SELECT entry.balance_after
    FROM account_transaction AS entry
    WHERE entry.partition = projection.partition
      AND entry.generation = projection.generation
      AND entry.account_id = $2
      AND entry.version = period.before
    LIMIT 1
) AS before ON true
LEFT JOIN LATERAL (
    SELECT entry.balance_after
    FROM account_transaction AS entry
    WHERE entry.partition = projection.partition
      AND entry.generation = projection.generation
      AND entry.account_id = $2
      AND entry.version = period.last
    LIMIT 1
) AS last ON true
LEFT JOIN LATERAL (
    SELECT account_view.currency
    FROM account_view
    WHERE account_view.partition = accounts.partition
      AND account_view.generation = accounts.generation
      AND account_view.account_id = opening.account_id
    LIMIT 1
) AS account ON true
WHERE projection.partition = $1
  AND projection.name = 'transactions'
  AND projection.state = 'live'
  AND projection.schema_version >= 3
