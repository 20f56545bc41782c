-- The balances after the last versions before the period ($3) and within it ($4). $5 is the checkpoint at which they were read.
SELECT
    least(projection.position, $5::bigint) AS "position!",
    projection.generation,
    opening.account_id AS "account_id?",
    account.currency AS "currency?",
    coalesce(before.balance_after, 0) AS "opening_balance!",
    coalesce(last.balance_after, 0) AS "closing_balance!"
FROM projection
JOIN projection AS accounts
    ON accounts.partition = $1 AND accounts.name = 'accounts' AND accounts.state = 'live'
LEFT JOIN LATERAL (
    SELECT entry.account_id
    FROM account_transaction AS entry
    WHERE entry.partition = $1
      AND entry.generation = projection.generation
      AND entry.account_id = $2
      AND entry.version = 1
    LIMIT 1
) AS opening ON true
LEFT JOIN LATERAL (
    SELECT entry.balance_after
    FROM account_transaction AS entry
    WHERE entry.partition = $1
      AND entry.generation = projection.generation
      AND entry.account_id = $2
      AND entry.version = $3::bigint
    LIMIT 1
) AS before ON true
LEFT JOIN LATERAL (
    SELECT entry.balance_after
    FROM account_transaction AS entry
    WHERE entry.partition = $1
      AND entry.generation = projection.generation
      AND entry.account_id = $2
      AND entry.version = $4::bigint
    LIMIT 1
) AS last ON true
LEFT JOIN LATERAL (
    SELECT account_view.currency
    FROM account_view
    WHERE account_view.partition = $1
      AND account_view.generation = accounts.generation
      AND account_view.account_id = opening.account_id
    LIMIT 1
) AS account ON true
WHERE projection.partition = $1
  AND projection.name = 'transactions'
  AND projection.state = 'live'
  AND projection.schema_version >= 3
