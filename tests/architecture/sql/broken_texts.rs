//! Texts that break a rule, and texts that keep it.

use std::collections::BTreeMap;

use super::{
    CORPUS, Origin, change_functions, parsed,
    rules::{Rule, broken},
    split,
};

/// Checks that each of the first texts breaks the rule, and that none of the others does.
#[track_caller]
fn assert_rule(rule: Rule, wrong: &[&str], right: &[&str]) {
    let breaks = |text: &&&str| {
        let statements = parsed(text, Origin::Service).into_iter();
        statements.flat_map(|sql| broken(&sql, &CORPUS.schema)).any(|(of, _)| of == rule)
    };
    let missed: Vec<_> = wrong.iter().filter(|text| !breaks(text)).collect();
    let refused: Vec<_> = right.iter().filter(breaks).collect();
    assert!(missed.is_empty() && refused.is_empty(), "{rule:?} misses {missed:#?} and refuses {refused:#?}");
}

#[test]
fn a_table_without_an_equality_for_its_partition_is_detected() {
    assert_rule(
        Rule::OnePartition,
        &[
            "SELECT id FROM event WHERE position = $1",
            "SELECT id FROM event WHERE partition > $1",
            "SELECT id FROM event WHERE partition = ANY($1)",
            "SELECT id FROM event WHERE partition IN (0, 1)",
            "SELECT id FROM event WHERE partition = $1 OR position = 1",
            "SELECT id FROM event WHERE NOT partition = $1",
            "SELECT e.partition FROM event AS e WHERE e.id = $1",
            "SELECT 1 FROM log_head WHERE partition = $1 AND EXISTS (SELECT FROM event WHERE id = $2)",
            "SELECT 1 FROM log_head JOIN event ON event.id = $1 WHERE log_head.partition = $2",
            "SELECT 1 FROM log_head LEFT JOIN event ON log_head.partition = $1 AND event.partition = log_head.partition",
            "SELECT 1 FROM log_head JOIN event USING (position) WHERE log_head.partition = $1",
            "SELECT 1 FROM log_head, LATERAL (SELECT FROM event WHERE event.partition = log_head.partition) AS e",
            "SELECT (SELECT max(position) FROM event) FROM log_head WHERE partition = $1",
            "UPDATE event SET id = $1 WHERE id = $2",
            "DELETE FROM event WHERE id = $1",
            "INSERT INTO event (id, partition) SELECT $1, $2",
            "INSERT INTO event (partition, id)
             SELECT e.partition, e.id FROM unnest($1::smallint[], $2::uuid[]) AS e(partition, id)",
        ],
        &[
            "SELECT id FROM event WHERE partition = $1",
            "SELECT id FROM event AS e WHERE e.position > 1 AND ($1 = e.partition)",
            "SELECT id FROM event WHERE partition = p_partition",
            "SELECT 1 FROM log_head JOIN event ON event.partition = log_head.partition WHERE log_head.partition = $2",
            "SELECT 1 FROM log_head JOIN event USING (partition) WHERE partition = $1",
            "SELECT 1 FROM log_head LEFT JOIN LATERAL (SELECT FROM event WHERE event.partition = log_head.partition) AS e ON true
             WHERE log_head.partition = $1",
            "SELECT relname FROM pg_class",
            "UPDATE event SET id = $1 WHERE id = $2 AND partition = $3",
            "INSERT INTO event (partition, id) SELECT $1, unnest($2::uuid[])",
            "INSERT INTO event (partition, id) VALUES ($1, $2)",
        ],
    );
}

#[test]
fn a_partition_that_is_compared_with_that_of_a_table_is_detected() {
    assert_rule(
        Rule::PartitionIsValue,
        &[
            "SELECT 1 FROM log_head JOIN event ON event.partition = log_head.partition WHERE log_head.partition = $1",
            "SELECT 1 FROM log_head, LATERAL (SELECT FROM event WHERE event.partition = log_head.partition) AS e
             WHERE log_head.partition = $1",
        ],
        &["SELECT 1 FROM log_head JOIN event ON event.partition = $1 WHERE log_head.partition = $1"],
    );
}

#[test]
fn a_statement_over_two_tables_is_detected() {
    assert_rule(
        Rule::OneTable,
        &[
            "SELECT 1 FROM log_head JOIN event ON event.partition = log_head.partition WHERE log_head.partition = $1",
            "SELECT 1 FROM log_head AS a JOIN log_head AS b ON a.partition = b.partition WHERE a.partition = $1",
            "SELECT (SELECT max(position) FROM event WHERE partition = $1) FROM log_head WHERE partition = $1",
            "SELECT 1 FROM log_head WHERE partition = $1 UNION ALL SELECT 2 FROM event WHERE partition = $1",
            "INSERT INTO event (partition, position) SELECT $1, position FROM log_head WHERE partition = $1",
            "DELETE FROM event USING log_head WHERE event.partition = $1 AND log_head.partition = $1",
        ],
        &[
            "SELECT 1 FROM log_head WHERE partition = $1",
            "SELECT 1 FROM pg_class JOIN pg_index ON indrelid = pg_class.oid",
        ],
    );
}

#[test]
fn a_join_of_a_table_with_parameters_is_detected() {
    assert_rule(
        Rule::NoJoinWithParameters,
        &[
            "SELECT e.id FROM unnest($2::uuid[]) AS w(id) JOIN event AS e ON e.partition = $1 AND e.id = w.id",
            "SELECT e.id FROM unnest($2::uuid[]) AS w(id) CROSS JOIN LATERAL (SELECT FROM event WHERE partition = $1) AS e",
            "SELECT 1 FROM event, generate_series(1, $2) WHERE partition = $1",
            "SELECT 1 FROM event, (VALUES ($2), ($3)) AS w(id) WHERE partition = $1",
            "DELETE FROM event USING unnest($2::uuid[]) AS w(id) WHERE event.partition = $1 AND event.id = w.id",
        ],
        &[
            "SELECT id FROM event WHERE partition = $1 AND id = ANY($2)",
            "SELECT * FROM append_batch($1)",
            "INSERT INTO event (partition, id) SELECT $1, w.id FROM unnest($2::uuid[]) AS w(id)",
        ],
    );
}

#[test]
fn a_function_that_reads_tables_within_a_query_is_detected() {
    assert_rule(
        Rule::NoReadingFunction,
        &[
            "SELECT version_at($1, generation, $2, $3) FROM projection WHERE partition = $1",
            "SELECT 1 FROM event WHERE partition = $1 AND position <= position_at($1, $2)",
            "INSERT INTO idempotency_key (partition, position) SELECT $1, position_at($1, $2)",
            // It reads through another function.
            "SELECT s.final_position FROM log_head, settle_moment($1, $2) AS s WHERE partition = $1",
        ],
        &[
            "SELECT position_at($1, $2)",
            "SELECT final_position FROM settle_moment($1, $2)",
            "SELECT greatest(position, 0) FROM log_head WHERE partition = $1",
        ],
    );
}

#[test]
fn a_subquery_without_from_is_detected() {
    assert_rule(
        Rule::SubqueryHasFrom,
        &[
            "SELECT m.now FROM log_head CROSS JOIN LATERAL (SELECT clock_timestamp() AS now) AS m WHERE partition = $1",
            "SELECT (SELECT now()) FROM log_head WHERE partition = $1",
            "UPDATE log_head SET recorded_at = (SELECT now()) WHERE partition = $1",
        ],
        &[
            "SELECT clock_timestamp()",
            "INSERT INTO event (partition, id) SELECT $1, $2",
            "SELECT s.id FROM (SELECT id FROM event WHERE partition = $1) AS s",
        ],
    );
}

#[test]
fn an_element_of_an_array_in_set_is_detected() {
    assert_rule(
        Rule::NoSubscriptInSet,
        &[
            "UPDATE log_head SET hash = p_hashes[cardinality(p_hashes)] WHERE partition = p_partition",
            "UPDATE log_head SET hash = coalesce(p_hashes[1], p_hash) WHERE partition = p_partition",
            "INSERT INTO log_head (partition) VALUES ($1) ON CONFLICT (partition) DO UPDATE SET hash = ($2::bytea[])[1]",
        ],
        &["UPDATE log_head SET hash = last_hash WHERE partition = $1", "SELECT ($1::bytea[])[1]"],
    );
}

#[test]
fn a_function_with_forced_generic_plans_is_detected() {
    let mut functions = BTreeMap::new();
    let mut is_generic = |text: &str| {
        split(text).iter().for_each(|tokens| change_functions(tokens, &mut functions));
        functions["f"].is_generic
    };
    assert!(is_generic(
        "CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql SET plan_cache_mode = force_generic_plan AS $$SELECT 1$$"
    ));
    assert!(!is_generic("ALTER FUNCTION f RESET plan_cache_mode"));
    assert!(is_generic("ALTER FUNCTION f SET plan_cache_mode = force_generic_plan"));
    assert!(!is_generic("CREATE OR REPLACE FUNCTION f(a int) RETURNS int LANGUAGE sql AS $$SELECT 2$$"));
}

#[test]
fn a_key_that_does_not_begin_with_the_partition_is_detected() {
    assert_rule(
        Rule::KeyBeginsWithPartition,
        &[
            "CREATE TABLE t (id bigint, partition smallint)",
            "CREATE TABLE t (partition bigint, PRIMARY KEY (partition))",
            "CREATE TABLE t (partition smallint, id bigint PRIMARY KEY)",
            "CREATE TABLE t (partition smallint, id bigint UNIQUE)",
            "CREATE TABLE t (partition smallint, id bigint, PRIMARY KEY (id, partition))",
            "CREATE TABLE t (partition smallint, id bigint, CONSTRAINT c UNIQUE (id))",
            "ALTER TABLE t ADD CONSTRAINT c UNIQUE (id, partition)",
            "CREATE UNIQUE INDEX i ON t (lower(partition), id)",
            "CREATE INDEX CONCURRENTLY i ON t (id) WHERE partition = 1",
        ],
        &[
            "CREATE TABLE t (partition smallint PRIMARY KEY, id bigint)",
            "CREATE TABLE t (partition smallint NOT NULL, id bigint, CONSTRAINT c UNIQUE (partition, id))",
            "CREATE INDEX i ON t (partition, id) WHERE id > 0",
        ],
    );
}

#[test]
fn a_sequence_is_detected() {
    assert_rule(
        Rule::NoSequence,
        &[
            "CREATE SEQUENCE s",
            "CREATE TABLE t (partition smallint, id bigserial)",
            "CREATE TABLE t (partition smallint, id bigint GENERATED ALWAYS AS IDENTITY)",
            "ALTER TABLE t ADD COLUMN id serial",
            "CREATE TABLE t (partition smallint, id bigint DEFAULT nextval('s'))",
            "SELECT nextval('s')",
        ],
        &["CREATE TABLE t (partition smallint, id bigint DEFAULT 0)"],
    );
}

#[test]
fn a_foreign_key_is_detected() {
    assert_rule(
        Rule::NoForeignKey,
        &[
            "CREATE TABLE t (partition smallint REFERENCES log_head)",
            "CREATE TABLE t (partition smallint, FOREIGN KEY (partition) REFERENCES log_head (partition))",
            "ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (partition) REFERENCES log_head",
            "ALTER TABLE t ADD COLUMN other smallint REFERENCES log_head",
        ],
        &["CREATE TABLE t (partition smallint CHECK (partition = 0))"],
    );
}

#[test]
fn a_change_of_the_schema_while_serving_is_detected() {
    assert_rule(
        Rule::NoDdlWhileServing,
        &[
            "CREATE TABLE t (partition smallint)",
            "CREATE INDEX CONCURRENTLY i ON event (partition, id)",
            "ALTER TABLE event ADD COLUMN a bigint",
            "DROP TABLE t",
            "TRUNCATE snapshot",
            "LOCK TABLE event IN SHARE MODE",
            "GRANT SELECT ON event TO passbook_service",
            "VACUUM event",
        ],
        &["SELECT 1", "SET LOCAL synchronous_commit = on", "SHOW server_version", "BEGIN", "COMMIT"],
    );
}

#[test]
fn a_change_of_events_is_detected() {
    assert_rule(
        Rule::EventsStay,
        &[
            "UPDATE event SET data = $2 WHERE partition = $1",
            "DELETE FROM event WHERE partition = $1",
            "TRUNCATE event",
            "INSERT INTO event (partition, id) VALUES ($1, $2)",
        ],
        &["DELETE FROM snapshot WHERE partition = $1"],
    );
}

#[test]
fn what_is_right_at_one_node_only_is_detected() {
    assert_rule(
        Rule::NoWriteInCte,
        &["WITH d AS (DELETE FROM snapshot WHERE partition = $1 RETURNING stream_id) SELECT * FROM d"],
        &["WITH d AS (SELECT 1) SELECT * FROM d"],
    );
    assert_rule(Rule::NoOffset, &["SELECT 1 FROM event WHERE partition = $1 LIMIT 1 OFFSET 5"], &["SELECT 1 LIMIT 1"]);
    assert_rule(Rule::NoNotification, &["LISTEN c", "NOTIFY c", "SELECT pg_notify('c', '')"], &["SELECT 1"]);
    assert_rule(Rule::NoAdvisoryLock, &["SELECT pg_advisory_xact_lock(1)"], &["SELECT pg_backend_pid()"]);
}
