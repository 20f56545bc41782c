INSERT INTO idempotency_key (partition, caller, key, fingerprint, receipt, recorded_at, position)
SELECT $1, k.caller, k.key, k.fingerprint, k.receipt::json, k.recorded_at, k.position
FROM unnest($2::text[], $3::text[], $4::bytea[], $5::text[], $6::timestamptz[], $7::bigint[])
    AS k(caller, key, fingerprint, receipt, recorded_at, position)
ON CONFLICT (partition, caller, key) DO NOTHING
