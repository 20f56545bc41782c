//! The statements that break a rule today, each with the reason. A new statement keeps the rules.

use super::rules::Rule;

/// Statements that may break a rule.
pub struct Exception {
    pub rule: Rule,
    pub because: &'static str,
    /// The beginnings of the statements: a file or a function, and their text as far as it is needed.
    pub places: &'static [&'static str],
}

pub const EXCEPTIONS: &[Exception] = &[
    Exception {
        rule: Rule::OnePartition,
        because: "The log head of each partition is compared on a replica before it answers queries. It locks nothing.",
        places: &[
            "crates/read-model/src/query_router.rs: SELECT coalesce(bool_and(",
            "crates/read-model/src/query_router.rs: SELECT partition, position, hash FROM log_head",
        ],
    },
    Exception {
        rule: Rule::OneTable,
        because: "A query reads its rows and the checkpoint of their view at one moment. The node of the partition has both.",
        places: &[
            "crates/read-model/src/views/accounts/among.sql",
            "crates/read-model/src/views/accounts/as_of.sql",
            "crates/read-model/src/views/accounts/list.sql",
            "crates/read-model/src/views/accounts/live.sql",
            "crates/read-model/src/views/accounts/of_currency.sql",
            "crates/read-model/src/views/accounts/of_owner.sql",
            "crates/read-model/src/views/accounts/of_status.sql",
            "crates/read-model/src/views/accounts/sorted_among.sql",
            "crates/read-model/src/views/accounts/sorted_of_currency.sql",
            "crates/read-model/src/views/accounts/sorted_of_owner.sql",
            "crates/read-model/src/views/accounts/sorted_of_status.sql",
            "crates/read-model/src/views/accounts/with_owner_beginning.sql",
            "crates/read-model/src/views/bank_totals/held.sql",
            "crates/read-model/src/views/bank_totals/totals.sql",
            "crates/read-model/src/views/daily_balances/list.sql",
            "crates/read-model/src/views/holds/due.sql",
            "crates/read-model/src/views/holds/list.sql",
            "crates/read-model/src/views/holds/of_status.sql",
            "crates/read-model/src/views/holds/one.sql",
            "crates/read-model/src/views/ledger_totals/trial_balance.sql",
            "crates/read-model/src/views/transactions/accounts_of_owner.sql",
            "crates/read-model/src/views/transactions/found.sql",
            "crates/read-model/src/views/transactions/list.sql",
            "crates/read-model/src/views/transactions/of_accounts.sql",
            "crates/read-model/src/views/transactions/recent.sql",
            "crates/read-model/src/views/transactions/statement.sql",
            "crates/read-model/src/views/transactions/statement_page.sql",
            "crates/read-model/src/views/transactions/transfer.sql",
            "crates/read-model/src/views/transactions/with_reference.sql",
        ],
    },
    Exception {
        rule: Rule::OneTable,
        because: "A look-up of several streams, keys or accounts in one round trip. The node of the partition has all its tables.",
        places: &[
            "crates/event-store/src/check_head_and_keys.sql",
            "crates/event-store/src/load_streams.sql",
            "crates/event-store/src/movements.sql",
            "crates/read-model/src/views/transactions/last.sql",
        ],
    },
    Exception {
        rule: Rule::OneTable,
        because: "Not hot: verification, checks of a rebuild, status, a replica's state, the lag of the relay, and an empty log.",
        places: &[
            "crates/event-store/src/events_with_previous_hash.sql",
            "crates/read-model/src/projector.rs: SELECT EXISTS ( SELECT FROM projection JOIN unnest(",
            "crates/read-model/src/query_router.rs: SELECT coalesce(bool_and(",
            "crates/read-model/src/rebuild_command.rs: SELECT state, projection.position,",
            "crates/read-model/src/status.sql",
            "crates/read-model/src/views/holds/broken.sql",
            "crates/read-model/src/views/transactions/over_reversed.sql",
            "crates/relay/src/checkpoint.rs: SELECT log_head.position AS head,",
            "migrations/0007_partitions.sql: INSERT INTO log_layout",
        ],
    },
    Exception {
        rule: Rule::NoJoinWithParameters,
        because: "A look-up of several streams, keys or accounts in one round trip, each through the key.",
        places: &[
            "crates/event-store/src/check_head_and_keys.sql",
            "crates/event-store/src/events_after_versions.sql",
            "crates/event-store/src/find_events.sql",
            "crates/event-store/src/find_member.sql",
            "crates/event-store/src/find_type_and_member.sql",
            "crates/event-store/src/load_streams.sql",
            "crates/event-store/src/log.rs: SELECT found.caller AS",
            "crates/event-store/src/movements.sql",
            "crates/read-model/src/views/accounts/among.sql",
            "crates/read-model/src/views/accounts/by_id.sql",
            "crates/read-model/src/views/accounts/holds.sql",
            "crates/read-model/src/views/accounts/live.sql",
            "crates/read-model/src/views/accounts/sorted_among.sql",
            "crates/read-model/src/views/daily_balances/last.sql",
            "crates/read-model/src/views/holds/active.sql",
            "crates/read-model/src/views/transactions/found.sql",
            "crates/read-model/src/views/transactions/holds.sql",
            "crates/read-model/src/views/transactions/last.sql",
            "crates/read-model/src/views/transactions/of_accounts.sql",
        ],
    },
    Exception {
        rule: Rule::NoJoinWithParameters,
        because: "The rows that a batch changes, each through its key. Citus plans the update for the shard of the partition.",
        places: &[
            "crates/read-model/src/views/accounts/update.sql",
            "crates/read-model/src/views/bank_totals/add_existing.sql",
            "crates/read-model/src/views/daily_balances/update.sql",
            "crates/read-model/src/views/holds/add_to_total.sql",
            "crates/read-model/src/views/holds/update.sql",
            "crates/read-model/src/views/ledger_totals/add_existing.sql",
            "crates/read-model/src/views/transactions/add_to_reversed.sql",
        ],
    },
    Exception {
        rule: Rule::NoJoinWithParameters,
        because: "The function runs on the node of the partition.",
        places: &[
            "function append_batch: SELECT 'key_recorded'",
            "function append_batch_with_reversals: SELECT 'key_recorded'",
            "function delete_old_keys: DELETE FROM idempotency_key",
        ],
    },
    Exception {
        rule: Rule::NoJoinWithParameters,
        because: "Not hot: a few rows of `projection` with the schema versions of this release, and samples for a check.",
        places: &[
            "crates/read-model/src/consistency.rs: SELECT event.stream_id FROM",
            "crates/read-model/src/generation.rs: SELECT EXISTS ( SELECT FROM projection JOIN unnest(",
            "crates/read-model/src/generation.rs: SELECT projection.name, generation,",
            "crates/read-model/src/projector.rs: SELECT EXISTS ( SELECT FROM projection JOIN unnest(",
            "crates/read-model/src/projector.rs: SELECT sum(position)",
            "crates/read-model/src/query_router.rs: SELECT coalesce(bool_and(",
        ],
    },
    Exception {
        rule: Rule::SubqueryHasFrom,
        because: "The subquery calls no volatile function, so Citus plans it for the shard of the partition.",
        places: &[
            "crates/read-model/src/views/accounts/among.sql",
            "crates/read-model/src/views/accounts/list.sql",
            "crates/read-model/src/views/accounts/of_currency.sql",
            "crates/read-model/src/views/accounts/of_owner.sql",
            "crates/read-model/src/views/accounts/of_status.sql",
            "crates/read-model/src/views/accounts/sorted_among.sql",
            "crates/read-model/src/views/accounts/sorted_of_currency.sql",
            "crates/read-model/src/views/accounts/sorted_of_owner.sql",
            "crates/read-model/src/views/accounts/sorted_of_status.sql",
            "crates/read-model/src/views/transactions/of_accounts.sql",
            "crates/read-model/src/views/transactions/recent.sql",
        ],
    },
    Exception {
        rule: Rule::NoGenericPlan,
        because: "On one server the setting keeps the plan through the keys. On Citus these functions must not have it.",
        places: &["function append_batch", "function delete_old_keys", "function position_at", "function version_at"],
    },
    Exception {
        rule: Rule::KeyBeginsWithPartition,
        because: "A GIN index has no order. The rows that it finds are compared with the partition.",
        places: &["crates/database/src/late_indexes.rs: CREATE INDEX CONCURRENTLY account_view_metadata"],
    },
    Exception {
        rule: Rule::NoDdlWhileServing,
        because: "`passbook migrate` and the first start of an embedded server.",
        places: &[
            "crates/database/src/node_functions.sql: CREATE OR REPLACE FUNCTION",
            "crates/database/src/node_functions.sql: GRANT EXECUTE ON FUNCTION keep_",
            "crates/database/src/node_functions.sql: REVOKE ALL ON FUNCTION keep_",
            "crates/database/src/citus.rs: DROP TRIGGER IF EXISTS event_immutable",
            "crates/database/src/grants.sql",
            "crates/database/src/node_role.sql: ALTER ROLE passbook_service LOGIN",
            "crates/database/src/late_indexes.rs: CREATE INDEX CONCURRENTLY",
            "crates/database/src/late_indexes.rs: CREATE EXTENSION IF NOT EXISTS pg_trgm",
            "crates/database/src/rights.rs: LOCK TABLE _sqlx_migrations",
            "crates/embedded-postgres/src/lib.rs: CREATE DATABASE passbook",
        ],
    },
    Exception {
        rule: Rule::NoDdlWhileServing,
        because: "A statement that a message recommends to the operator.",
        places: &["crates/event-store/src/session.rs: ALTER ROLE bank SET"],
    },
];

/// The place of an exception for a statement, if there is one.
pub fn find(rule: Rule, place: &str) -> Option<&'static str> {
    let of_rule = EXCEPTIONS.iter().filter(|exception| exception.rule == rule);
    of_rule.flat_map(|exception| exception.places).copied().find(|known| place.starts_with(known))
}
