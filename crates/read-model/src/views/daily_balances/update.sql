-- As upsert.sql, for the rows that exist.
UPDATE daily_balance AS view SET
    money_in = new.money_in::numeric,
    money_out = new.money_out::numeric,
    closing = new.closing,
    count = new.count
FROM unnest($3::uuid[], $4::date[], $5::bigint[], $6::text[], $7::text[], $8::bigint[], $9::bigint[])
    AS new(account_id, day, opening, money_in, money_out, closing, count)
WHERE view.partition = $1 AND view.generation = $2 AND view.account_id = new.account_id AND view.day = new.day
RETURNING view.account_id, view.day
