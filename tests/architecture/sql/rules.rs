//! The rules of a log that lies on one server or on many. They keep every statement valid on a Citus cluster, and planned by its
//! fast path.

use std::collections::BTreeSet;

use sqlparser::ast::Statement;

use super::{
    CORPUS, Origin, Schema, Sql,
    exceptions::{self, EXCEPTIONS},
    keys,
    partition::{self, By},
    shape::{Shape, target},
};

/// What Citus refuses, plans slowly or cannot keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Each table is restricted to one partition by an equality.
    OnePartition,
    /// The partition of each table is compared with a value, so that Citus finds the node without planning a join.
    PartitionIsValue,
    /// A statement reads or writes one table.
    OneTable,
    /// A statement that reads a table has no rows of parameters, such as `unnest($1)`, in a FROM clause.
    NoJoinWithParameters,
    /// A function that reads tables is called alone, not within the query of a table or within a subquery.
    NoReadingFunction,
    /// A subquery has a FROM clause.
    SubqueryHasFrom,
    /// No assigned value is an element of an array: the deparser of Citus 13 crashes.
    NoSubscriptInSet,
    /// No function forces generic plans: they have no value for the partition.
    NoGenericPlan,
    /// Every primary key, unique key and index begins with the partition.
    KeyBeginsWithPartition,
    /// Positions come from `log_head`. A sequence has holes and becomes visible out of order.
    NoSequence,
    /// A foreign key could cross partitions.
    NoForeignKey,
    /// Nothing changes the schema while the service runs.
    NoDdlWhileServing,
    /// Events are inserted by the append alone, and never changed.
    EventsStay,
    /// A common table expression changes nothing: all parts of a statement see the same snapshot.
    NoWriteInCte,
    /// Pages continue after a key.
    NoOffset,
    /// NOTIFY in a transaction serializes all commits.
    NoNotification,
    /// An advisory lock is taken at one node only.
    NoAdvisoryLock,
}

/// The functions and files that insert events: the append, and the import of another log before this one is served.
const APPENDS: &[&str] = &[
    "function append_batch: ",
    "function append_batch_with_reversals: ",
    "crates/event-store/src/append_imported.sql: ",
];

/// The rules that a statement breaks, each with what breaks it.
pub fn broken(sql: &Sql, schema: &Schema) -> Vec<(Rule, String)> {
    let shape = Shape::of(&sql.tree);
    let mut found = Vec::new();
    let mut check = |rule: Rule, breaks: Vec<String>| found.extend(breaks.into_iter().map(|what| (rule, what)));
    let when = |is_broken: bool, what: &str| if is_broken { vec![what.to_owned()] } else { Vec::new() };

    let unrestricted = partition::unrestricted(&sql.tree, schema, By::Equality);
    let by_table = partition::unrestricted(&sql.tree, schema, By::Value).into_iter();
    check(Rule::PartitionIsValue, by_table.filter(|table| !unrestricted.contains(table)).collect());
    check(Rule::OnePartition, unrestricted);
    check(Rule::KeyBeginsWithPartition, keys::keys_without_partition(&sql.tree));
    check(Rule::NoForeignKey, keys::foreign_keys(&sql.tree));
    let called = |names: &[&str]| {
        shape.functions.iter().filter(|name| names.contains(&name.as_str())).cloned().collect::<Vec<_>>()
    };
    check(
        Rule::NoSequence,
        [keys::sequences(&sql.tree), called(&["nextval", "currval", "lastval", "setval"])].concat(),
    );

    let tables: Vec<&String> = shape.tables.iter().filter(|table| schema.tables.contains(*table)).collect();
    check(Rule::OneTable, when(tables.len() > 1, &format!("{tables:?}")));
    let inserts = usize::from(matches!(sql.tree, Statement::Insert(_)));
    let reads_table = tables.len() > inserts;
    check(Rule::NoJoinWithParameters, when(reads_table && shape.has_rows_of_parameters, "rows of parameters"));
    let reading: Vec<&String> = shape.functions.iter().filter(|name| schema.reading.contains(*name)).collect();
    check(Rule::NoReadingFunction, when(!reading.is_empty() && !tables.is_empty(), &format!("{reading:?}")));
    check(Rule::SubqueryHasFrom, when(!tables.is_empty() && shape.has_subquery_without_from, "a subquery"));
    check(Rule::NoSubscriptInSet, when(shape.assigns_subscript, "an element of an array"));

    let is_ddl = sql.origin != Origin::Migration && !is_while_serving(&sql.tree);
    check(Rule::NoDdlWhileServing, when(is_ddl, "a change of the schema"));
    check(Rule::EventsStay, when(!keeps_events(sql), "a change of events"));
    check(Rule::NoWriteInCte, when(shape.has_writing_part, "a writing part"));
    check(Rule::NoOffset, when(shape.has_offset, "OFFSET"));
    let notifies = matches!(sql.tree, Statement::LISTEN { .. } | Statement::NOTIFY { .. });
    check(Rule::NoNotification, [when(notifies, "a notification"), called(&["pg_notify"])].concat());
    let advisory = shape.functions.iter().filter(|name| name.contains("advisory")).cloned();
    check(Rule::NoAdvisoryLock, advisory.collect());
    found
}

/// Whether the service may send a statement while it serves.
fn is_while_serving(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Query(_)
            | Statement::Insert(_)
            | Statement::Update(_)
            | Statement::Delete(_)
            | Statement::Set(_)
            | Statement::Reset(_)
            | Statement::ShowVariable { .. }
            | Statement::StartTransaction { .. }
            | Statement::Commit { .. }
            | Statement::Rollback { .. }
    )
}

fn keeps_events(sql: &Sql) -> bool {
    let is_append =
        matches!(sql.tree, Statement::Insert(_)) && APPENDS.iter().any(|append| sql.place.starts_with(append));
    target(&sql.tree).is_none_or(|table| table != "event" || is_append)
}

#[test]
fn every_statement_keeps_the_rules_or_is_a_known_exception() {
    let generic = CORPUS.schema.functions.iter().filter(|(_, function)| function.is_generic);
    let generic = generic
        .map(|(function, _)| (Rule::NoGenericPlan, "plan_cache_mode".to_owned(), format!("function {function}")));
    let of_statement = |sql: &'static Sql| {
        let found = broken(sql, &CORPUS.schema).into_iter();
        found.map(|(rule, what)| (rule, what, sql.place.clone()))
    };
    let mut new = Vec::new();
    let mut needed = BTreeSet::new();
    for (rule, what, place) in CORPUS.statements.iter().flat_map(of_statement).chain(generic) {
        match exceptions::find(rule, &place) {
            Some(known) => drop(needed.insert((rule, known))),
            None => new.push(format!("{rule:?} ({what}): {place}")),
        }
    }
    assert!(new.is_empty(), "these statements break a rule of tests/architecture/sql/rules.rs:\n{}", new.join("\n"));
    assert!(EXCEPTIONS.iter().all(|exception| exception.because.len() > 20), "an exception has a reason");
    let listed = EXCEPTIONS.iter().flat_map(|exception| exception.places.iter().map(|place| (exception.rule, *place)));
    let unneeded: Vec<_> = listed.filter(|known| !needed.contains(known)).collect();
    assert!(unneeded.is_empty(), "no statement needs these exceptions any more, so remove them:\n{unneeded:#?}");
}

#[test]
fn statements_over_several_partitions_lock_nothing() {
    for sql in CORPUS.statements.iter().filter(|sql| Shape::of(&sql.tree).locks) {
        assert!(exceptions::find(Rule::OnePartition, &sql.place).is_none(), "{}", sql.place);
    }
}
