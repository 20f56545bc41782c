-- The rows that add_existing.sql has not updated ($9, $10 and $11).
INSERT INTO ledger_total (
    partition, generation, day, currency, ledger_account, debit, credit, event_count
)
SELECT
    $1, $2, new.day, new.currency, new.ledger_account, new.debit::numeric, new.credit::numeric, new.event_count
FROM unnest($3::date[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[])
    AS new(day, currency, ledger_account, debit, credit, event_count)
WHERE NOT EXISTS (
    SELECT FROM unnest($9::date[], $10::text[], $11::text[]) AS updated(day, currency, ledger_account)
    WHERE updated.day = new.day AND updated.currency = new.currency AND updated.ledger_account = new.ledger_account
)
