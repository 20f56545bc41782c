-- The changes are added by the statement, so no row is read before. Arrays are unnested in the select list, which yields rows one by
-- one.
INSERT INTO bank_total AS held (
    partition, generation, currency, open, frozen, closed, money, event_count, transferred
)
SELECT
    $1,
    $2,
    unnest($3::text[]),
    unnest($4::bigint[]),
    unnest($5::bigint[]),
    unnest($6::bigint[]),
    unnest($7::text[])::numeric,
    unnest($8::bigint[]),
    unnest($9::text[])::numeric
ON CONFLICT (partition, generation, currency) DO UPDATE SET
    open = held.open + EXCLUDED.open,
    frozen = held.frozen + EXCLUDED.frozen,
    closed = held.closed + EXCLUDED.closed,
    money = held.money + EXCLUDED.money,
    event_count = held.event_count + EXCLUDED.event_count,
    transferred = held.transferred + EXCLUDED.transferred
