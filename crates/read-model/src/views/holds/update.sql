-- As upsert.sql, for the rows that exist.
UPDATE account_hold AS view SET
    status = new.status,
    captured = new.captured
FROM unnest(
    $3::uuid[], $4::bigint[], $5::uuid[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::timestamptz[],
    $11::timestamptz[], $12::text[], $13::text[]
) AS new(account_id, version, hold_id, currency, status, amount, captured, placed_at, expires_at, reference, metadata)
WHERE view.partition = $1 AND view.generation = $2 AND view.account_id = new.account_id AND view.version = new.version
RETURNING view.account_id, view.version
