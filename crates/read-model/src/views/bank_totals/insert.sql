-- The rows that add_existing.sql has not updated ($10).
INSERT INTO bank_total (
    partition, generation, currency, open, frozen, closed, money, event_count, transferred
)
SELECT
    $1, $2, new.currency, new.open, new.frozen, new.closed, new.money::numeric, new.event_count, new.transferred::numeric
FROM unnest($3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::bigint[], $9::text[])
    AS new(currency, open, frozen, closed, money, event_count, transferred)
WHERE new.currency <> ALL ($10::text[])
