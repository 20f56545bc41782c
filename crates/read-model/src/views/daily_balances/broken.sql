-- A day whose opening is not the closing of the previous day, or whose sums do not add up. Rows are read in key order, so nothing is
-- sorted.
SELECT walked.account_id, walked.day
FROM (
    SELECT
        daily_balance.*,
        lag(daily_balance.closing, 1, 0::bigint) OVER (PARTITION BY daily_balance.account_id ORDER BY daily_balance.day) AS before
    FROM daily_balance
    WHERE daily_balance.partition = $1 AND daily_balance.generation = $2
) AS walked
WHERE walked.opening <> walked.before
   OR walked.opening + walked.money_in - walked.money_out <> walked.closing
   OR walked.count < 1
LIMIT 1
