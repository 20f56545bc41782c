//! Two releases use one database during an upgrade. So a migration only adds, and a later release removes what no running release
//! needs.

use sqlparser::ast::{AlterColumnOperation, AlterTableOperation, ColumnOption, CreateIndex, Statement};

use super::{CORPUS, Origin, Sql, keys, last_name, parsed};

/// Removals of what the previous release did not rely on.
const LOOSENED: &[&str] = &[
    // The next statement adds the constraint again, with more states.
    "migrations/0003_generations_and_history.sql: ALTER TABLE projection DROP CONSTRAINT projection_state_check",
];

/// Building an index blocks all writes to its table. The first two migrations are older than the first release. The last one builds
/// indexes of a view: only the projector waits, and commands go on.
const INDEXED_LATER: &[&str] = &[
    "migrations/0003_generations_and_history.sql",
    "migrations/0004_audit_trail.sql",
    "migrations/0017_account_list_indexes.sql",
];

/// What a statement of a migration takes from the previous release.
fn removals(sql: &Sql) -> Vec<String> {
    let is_removal = match &sql.tree {
        Statement::Drop { .. }
        | Statement::DropFunction(_)
        | Statement::DropTrigger(_)
        | Statement::Truncate(_)
        | Statement::Delete(_)
        | Statement::Revoke(_) => true,
        tree => keys::operations(tree).iter().any(removes),
    };
    let mut found: Vec<String> = is_removal.then(|| sql.place.clone()).into_iter().collect();
    if let Statement::AlterTable(_) = sql.tree {
        // The previous release inserts rows without the new column.
        let has = |options: &[sqlparser::ast::ColumnOptionDef], wanted: fn(&ColumnOption) -> bool| {
            options.iter().any(|option| wanted(&option.option))
        };
        let required = keys::columns(&sql.tree).into_iter().filter(|column| {
            has(&column.options, |option| matches!(option, ColumnOption::NotNull))
                && !has(&column.options, |option| matches!(option, ColumnOption::Default(_)))
        });
        found.extend(required.map(|column| format!("{}: {column} is required", sql.place)));
    }
    found
}

fn removes(operation: &AlterTableOperation) -> bool {
    match operation {
        AlterTableOperation::AlterColumn { op, .. } => !matches!(op, AlterColumnOperation::SetDefault { .. }),
        AlterTableOperation::AddColumn { .. }
        | AlterTableOperation::AddConstraint { .. }
        | AlterTableOperation::EnableAlwaysTrigger { .. } => false,
        _ => true,
    }
}

#[test]
fn a_migration_removes_nothing_that_the_previous_release_uses() {
    let of_migrations = || CORPUS.statements.iter().filter(|sql| sql.origin == Origin::Migration);
    for sql in of_migrations() {
        let removed = removals(sql);
        assert!(removed.is_empty() || LOOSENED.contains(&sql.place.as_str()), "{removed:#?}");
        if let Statement::CreateIndex(CreateIndex { table_name, .. }) = &sql.tree {
            let file = sql.place.split_once(": ").unwrap().0;
            let is_new = of_migrations().any(|other| {
                matches!(&other.tree, Statement::CreateTable(table) if table.name == *table_name)
                    && other.place.starts_with(file)
            });
            assert!(is_new || INDEXED_LATER.contains(&file), "{file} blocks writes to {}", last_name(table_name));
        }
    }
}

#[test]
fn a_removal_in_a_migration_is_detected() {
    let removed = |text: &str| parsed(text, Origin::Migration).iter().any(|sql| !removals(sql).is_empty());
    for wrong in [
        "DROP TABLE event",
        "DROP FUNCTION append_batch",
        "ALTER TABLE event DROP COLUMN id",
        "ALTER TABLE event DROP CONSTRAINT event_pkey",
        "ALTER TABLE event RENAME COLUMN id TO name",
        "ALTER TABLE event ALTER COLUMN id SET NOT NULL",
        "ALTER TABLE event ALTER COLUMN id TYPE text",
        "ALTER TABLE event ADD COLUMN a bigint NOT NULL",
        "TRUNCATE snapshot",
        "DELETE FROM snapshot WHERE partition = 0",
        "REVOKE SELECT ON event FROM passbook_service",
    ] {
        assert!(removed(wrong), "{wrong}");
    }
    for right in ["ALTER TABLE event ADD COLUMN a bigint NOT NULL DEFAULT 0", "CREATE TABLE t (partition smallint)"] {
        assert!(!removed(right), "{right}");
    }
}
