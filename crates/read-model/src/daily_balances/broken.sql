-- A day that does not open with what the one before left, or does not add up. In the order of the key, so nothing is sorted.
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
