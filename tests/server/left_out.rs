//! The tests that a run on a given server leaves out, each with its reason.

use passbook_testkit::given_server::GivenServer;

/// Where a test cannot run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// On every given server.
    Given,
    /// On a Citus cluster.
    Citus,
    /// As a user who is no superuser.
    WithoutSuperuser,
}

impl Where {
    pub fn applies(self, server: &GivenServer) -> bool {
        match self {
            Self::Given => true,
            Self::Citus => server.is_citus(),
            Self::WithoutSuperuser => !server.is_superuser,
        }
    }
}

/// Tests of one suite that are left out for the same reason.
pub struct LeftOut {
    pub suite: &'static str,
    pub on: Where,
    /// Each one begins with one of these. An empty list means the whole suite.
    pub tests: &'static [&'static str],
    pub reason: &'static str,
}

pub const LEFT_OUT: &[LeftOut] = &[
    LeftOut {
        suite: "api",
        on: Where::Given,
        tests: &["citus::append_on_a_node_", "citus::every_table_and_function_is_distributed_by_partition_once"],
        reason: "they change the role passbook_service, which all databases of the server share",
    },
    LeftOut {
        suite: "api",
        on: Where::Citus,
        tests: &["citus::log_with_events_is_not_distributed"],
        reason: "they replace Citus's functions by others",
    },
    LeftOut {
        suite: "api",
        on: Where::Citus,
        tests: &["citus::schema_has_no_sequences_foreign_keys_or_needed_triggers"],
        reason: "they read the schema before its tables are distributed",
    },
    LeftOut {
        suite: "api",
        on: Where::Citus,
        tests: &[
            "batch_failures::command_rejected_by_the_database_fails_alone",
            "batch_failures::transient_database_errors_are_retried",
            "rebuild::inconsistent_rebuild_fails_and_does_not_go_live",
        ],
        reason: "they add triggers, which distributed tables cannot have",
    },
    LeftOut {
        suite: "api",
        on: Where::Citus,
        tests: &["hold_races::reversal_is_decided_on_the_log_that_the_executor_sees"],
        reason: "they hide rows from a connection by its name, which the nodes do not know",
    },
    LeftOut {
        suite: "api",
        on: Where::Citus,
        tests: &["batch_outages::"],
        reason: "they cut the connection of the one executor of all partitions; on a cluster each partition has its own",
    },
    LeftOut {
        suite: "api",
        on: Where::Citus,
        tests: &["new_views::", "previous_release::", "upgraded_views::"],
        reason: "they restore the tables of an earlier release, which are not distributed",
    },
    LeftOut {
        suite: "api",
        on: Where::WithoutSuperuser,
        tests: &["tampering::service_role_cannot_change_recorded_data"],
        reason: "they change settings that only a superuser may change",
    },
    LeftOut {
        suite: "chaos",
        on: Where::Given,
        tests: &[
            "guarantees_hold_for_an_instance_whose_disk_is_full",
            "guarantees_hold_for_an_instance_with_embedded_postgres",
        ],
        reason: "they are about the embedded Postgres",
    },
    LeftOut {
        suite: "cli, console, readme, relay",
        on: Where::Given,
        tests: &[],
        reason: "their servers crash, restart, become standbys or are copied as files",
    },
    LeftOut { suite: "benchmarks", on: Where::Given, tests: &[], reason: "they measure a server on this machine" },
];

/// The tests of this suite to leave out.
pub fn left_out_of(suite: &str, server: &GivenServer) -> Vec<&'static str> {
    let of_suite = LEFT_OUT.iter().filter(|left_out| left_out.suite == suite && left_out.on.applies(server));
    of_suite.flat_map(|left_out| left_out.tests).copied().collect()
}
