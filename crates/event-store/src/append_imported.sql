INSERT INTO event (partition, position, id, stream_id, version, type, schema_version, data, metadata, recorded_at, hash)
SELECT
    $1, $2 + e.ordinal, e.id, e.stream_id, e.version, e.type, e.schema_version, e.data::json, e.metadata::json,
    e.recorded_at, e.hash
FROM unnest(
    $3::uuid[], $4::uuid[], $5::bigint[], $6::text[], $7::smallint[], $8::text[], $9::text[], $10::timestamptz[], $11::bytea[]
) WITH ORDINALITY AS e(id, stream_id, version, type, schema_version, data, metadata, recorded_at, hash, ordinal)
