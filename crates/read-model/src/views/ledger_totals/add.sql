-- The changes are added by the statement, so no row is read before. Arrays are unnested in the select list, which yields rows one
-- by one.
INSERT INTO ledger_total AS held (
    partition, generation, day, currency, ledger_account, debit, credit, event_count
)
SELECT
    $1,
    $2,
    unnest($3::date[]),
    unnest($4::text[]),
    unnest($5::text[]),
    unnest($6::text[])::numeric,
    unnest($7::text[])::numeric,
    unnest($8::bigint[])
ON CONFLICT (partition, generation, day, currency, ledger_account) DO UPDATE SET
    debit = held.debit + EXCLUDED.debit,
    credit = held.credit + EXCLUDED.credit,
    event_count = held.event_count + EXCLUDED.event_count
