-- As add.sql, for the rows that exist.
UPDATE ledger_total AS held SET
    debit = held.debit + new.debit::numeric,
    credit = held.credit + new.credit::numeric,
    event_count = held.event_count + new.event_count
FROM unnest($3::date[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[])
    AS new(day, currency, ledger_account, debit, credit, event_count)
WHERE held.partition = $1
  AND held.generation = $2
  AND held.day = new.day
  AND held.currency = new.currency
  AND held.ledger_account = new.ledger_account
RETURNING held.day, held.currency, held.ledger_account
