SELECT
    account_id,
    day AS date,
    opening,
    money_in::text AS "money_in!: MoneySum",
    money_out::text AS "money_out!: MoneySum",
    closing,
    count
FROM daily_balance
WHERE partition = $1 AND generation = $2 AND ($3::uuid[] IS NULL OR account_id = ANY($3))
