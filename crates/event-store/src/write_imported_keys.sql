-- The position of a key is found once for each time: the keys of a batch share their time.
INSERT INTO idempotency_key (partition, caller, key, fingerprint, receipt, recorded_at, position)
SELECT $1, k.caller, k.key, k.fingerprint, k.receipt::json, k.recorded_at, batch.position
FROM unnest($2::text[], $3::text[], $4::bytea[], $5::text[], $6::timestamptz[])
    AS k(caller, key, fingerprint, receipt, recorded_at)
JOIN (
    SELECT times.recorded_at, position_at($1, times.recorded_at + interval '1 microsecond') AS position
    FROM (SELECT DISTINCT unnest($6::timestamptz[]) AS recorded_at) AS times
) AS batch ON batch.recorded_at = k.recorded_at
ON CONFLICT (partition, caller, key) DO NOTHING
