-- The rows that update.sql has not updated ($10 and $11).
INSERT INTO daily_balance (
    partition, generation, account_id, day, opening, money_in, money_out, closing, count
)
SELECT
    $1, $2, new.account_id, new.day, new.opening, new.money_in::numeric, new.money_out::numeric, new.closing, new.count
FROM unnest($3::uuid[], $4::date[], $5::bigint[], $6::text[], $7::text[], $8::bigint[], $9::bigint[])
    AS new(account_id, day, opening, money_in, money_out, closing, count)
WHERE NOT EXISTS (
    SELECT FROM unnest($10::uuid[], $11::date[]) AS updated(account_id, day)
    WHERE updated.account_id = new.account_id AND updated.day = new.day
)
