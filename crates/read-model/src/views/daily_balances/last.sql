SELECT
    wanted.account_id AS "account_id!",
    last.day AS date,
    last.opening,
    last.money_in::text AS "money_in!: MoneySum",
    last.money_out::text AS "money_out!: MoneySum",
    last.closing,
    last.count
FROM unnest($3::uuid[]) AS wanted(account_id)
CROSS JOIN LATERAL (
    SELECT daily_balance.*
    FROM daily_balance
    WHERE daily_balance.partition = $1
      AND daily_balance.generation = $2
      AND daily_balance.account_id = wanted.account_id
    ORDER BY daily_balance.day DESC
    LIMIT 1
) AS last
