SELECT
    projection.position,
    projection.generation,
    projection.schema_version,
    bank_total.currency AS "currency?",
    bank_total.open AS "open?",
    bank_total.frozen AS "frozen?",
    bank_total.closed AS "closed?",
    bank_total.money::text AS "money?: MoneySum",
    bank_total.transferred::text AS "transferred?: MoneySum"
FROM projection
LEFT JOIN bank_total
    ON bank_total.partition = $1 AND bank_total.generation = projection.generation
WHERE projection.partition = $1 AND projection.name = 'bank_totals' AND projection.state = 'live'
