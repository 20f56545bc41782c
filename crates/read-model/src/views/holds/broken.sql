-- A currency whose total is not the sum of what its holds have left, or that has a hold with an impossible amount.
SELECT coalesce(total.currency, hold.currency) AS "currency!"
FROM (
    SELECT held_total.currency, held_total.held
    FROM held_total
    WHERE held_total.partition = $1 AND held_total.generation = $2
) AS total
FULL JOIN (
    SELECT
        account_hold.currency,
        sum(CASE account_hold.status WHEN 'active' THEN account_hold.amount - account_hold.captured ELSE 0 END) AS held,
        bool_or(account_hold.captured < 0 OR account_hold.captured > account_hold.amount) AS is_impossible
    FROM account_hold
    WHERE account_hold.partition = $1 AND account_hold.generation = $2
    GROUP BY account_hold.currency
) AS hold ON hold.currency = total.currency
WHERE coalesce(total.held, 0) <> coalesce(hold.held, 0) OR coalesce(hold.is_impossible, false)
LIMIT 1
