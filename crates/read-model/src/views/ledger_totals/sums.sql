SELECT
    coalesce(sum(by_day.event_count), 0)::bigint AS "event_count!",
    coalesce(bool_or(by_day.debit <> by_day.credit), false) AS "is_unbalanced!"
FROM (
    SELECT
        sum(ledger_total.debit) AS debit,
        sum(ledger_total.credit) AS credit,
        sum(ledger_total.event_count) AS event_count
    FROM ledger_total
    WHERE ledger_total.partition = $1 AND ledger_total.generation = $2
    GROUP BY ledger_total.day, ledger_total.currency
) AS by_day
