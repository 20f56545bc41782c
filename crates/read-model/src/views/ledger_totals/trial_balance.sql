-- Without a day ($2), the sums of all days. A day has few rows, which lie together.
SELECT
    projection.position,
    projection.generation,
    total.currency AS "currency?",
    total.ledger_account AS "ledger_account?",
    total.debit::text AS "debit?: MoneySum",
    total.credit::text AS "credit?: MoneySum"
FROM projection
LEFT JOIN LATERAL (
    SELECT
        ledger_total.currency,
        ledger_total.ledger_account,
        sum(ledger_total.debit) AS debit,
        sum(ledger_total.credit) AS credit
    FROM ledger_total
    WHERE ledger_total.partition = $1
      AND ledger_total.generation = projection.generation
      AND ledger_total.day <= coalesce($2, 'infinity'::date)
    GROUP BY ledger_total.currency, ledger_total.ledger_account
) AS total ON true
WHERE projection.partition = $1 AND projection.name = 'ledger_totals' AND projection.state = 'live'
