-- As add.sql, for the rows that exist.
UPDATE bank_total AS held SET
    open = held.open + new.open,
    frozen = held.frozen + new.frozen,
    closed = held.closed + new.closed,
    money = held.money + new.money::numeric,
    event_count = held.event_count + new.event_count,
    transferred = held.transferred + new.transferred::numeric
FROM unnest($3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::bigint[], $9::text[])
    AS new(currency, open, frozen, closed, money, event_count, transferred)
WHERE held.partition = $1 AND held.generation = $2 AND held.currency = new.currency
RETURNING held.currency
