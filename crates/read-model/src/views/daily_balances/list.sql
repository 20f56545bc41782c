SELECT
    projection.position,
    projection.generation,
    view.day AS "date?",
    view.opening AS "opening?",
    view.money_in::text AS "money_in?: MoneySum",
    view.money_out::text AS "money_out?: MoneySum",
    view.closing AS "closing?",
    view.count AS "count?"
FROM projection
LEFT JOIN LATERAL (
    SELECT daily_balance.*
    FROM daily_balance
    WHERE daily_balance.partition = $1
      AND daily_balance.generation = projection.generation
      AND daily_balance.account_id = $2
      AND daily_balance.day >= coalesce($3, '-infinity'::date)
      AND daily_balance.day < coalesce($4, 'infinity'::date)
      AND daily_balance.day > coalesce($5, '-infinity'::date)
    ORDER BY daily_balance.day
    LIMIT $6
) AS view ON true
WHERE projection.partition = $1 AND projection.name = 'daily_balances' AND projection.state = 'live'
ORDER BY view.day
