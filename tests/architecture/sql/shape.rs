//! What a statement is made of, as far as Citus minds: its tables, functions, subqueries and assignments.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Assignment, Delete, DoUpdate, Expr, FromTable, Insert, LimitClause, OnConflict, OnConflictAction, OnInsert, Query,
    Select, SetExpr, Statement, TableFactor, TableObject, Update, Visit, Visitor, visit_expressions,
};

use super::last_name;

/// The parts of a statement.
#[derive(Debug, Default)]
pub struct Shape {
    /// The references to tables, also in subqueries, and the target of an INSERT.
    pub tables: Vec<String>,
    /// The functions that it calls.
    pub functions: Vec<String>,
    /// Whether a FROM clause has rows that are no table's: of a function, of arrays or of VALUES.
    pub has_rows_of_parameters: bool,
    pub has_subquery_without_from: bool,
    /// Whether an assigned value is an element of an array.
    pub assigns_subscript: bool,
    pub has_offset: bool,
    /// Whether it locks rows.
    pub locks: bool,
    /// Whether a common table expression changes a table.
    pub has_writing_part: bool,
    /// The enclosing queries of the visited part, of which one is the statement itself.
    depth: usize,
    own_depth: usize,
}

impl Shape {
    pub fn of(statement: &Statement) -> Self {
        let is_query = matches!(statement, Statement::Query(_) | Statement::Insert(_));
        let mut shape = Self { own_depth: usize::from(is_query), ..Self::default() };
        let _ = statement.visit(&mut shape);
        shape
    }

    fn assign(&mut self, assignments: &[Assignment]) {
        let is_subscript = |expression: &Expr| match expression {
            Expr::CompoundFieldAccess { .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        self.assigns_subscript |=
            assignments.iter().any(|assignment| visit_expressions(&assignment.value, is_subscript).is_break());
    }
}

impl Visitor for Shape {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        match statement {
            Statement::Update(Update { assignments, .. }) => self.assign(assignments),
            Statement::Insert(Insert { table, on, .. }) => {
                if let TableObject::TableName(name) = table {
                    self.tables.push(last_name(name));
                }
                if let Some(OnInsert::OnConflict(OnConflict { action: OnConflictAction::DoUpdate(update), .. })) = on {
                    let DoUpdate { assignments, .. } = update;
                    self.assign(assignments);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.depth += 1;
        self.locks |= !query.locks.is_empty();
        self.has_offset |= match &query.limit_clause {
            Some(LimitClause::LimitOffset { offset, .. }) => offset.is_some(),
            Some(LimitClause::OffsetCommaLimit { .. }) => true,
            None => false,
        };
        let parts = query.with.iter().flat_map(|with| &with.cte_tables);
        let is_writing = |body: &SetExpr| matches!(body, SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_));
        self.has_writing_part |= parts.into_iter().any(|part| is_writing(&part.query.body));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        self.has_subquery_without_from |= self.depth > self.own_depth && select.from.is_empty();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args: None, .. } => self.tables.push(last_name(name)),
            TableFactor::Table { name, .. } | TableFactor::Function { name, .. } => {
                self.functions.push(last_name(name));
                self.has_rows_of_parameters = true;
            }
            TableFactor::Derived { subquery, .. } => {
                self.has_rows_of_parameters |= matches!(*subquery.body, SetExpr::Values(_));
            }
            TableFactor::NestedJoin { .. } => {}
            // Rows of arrays, and what other databases have.
            _ => self.has_rows_of_parameters = true,
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expression {
            self.functions.push(last_name(&function.name));
        }
        ControlFlow::Continue(())
    }
}

/// The table that a statement changes.
pub fn target(statement: &Statement) -> Option<String> {
    let of_factor = |factor: &TableFactor| match factor {
        TableFactor::Table { name, .. } => Some(last_name(name)),
        _ => None,
    };
    match statement {
        Statement::Update(Update { table, .. }) => of_factor(&table.relation),
        Statement::Delete(Delete { from, .. }) => {
            let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = from;
            from.first().and_then(|table| of_factor(&table.relation))
        }
        Statement::Insert(Insert { table: TableObject::TableName(name), .. }) => Some(last_name(name)),
        Statement::Truncate(truncate) => truncate.table_names.first().map(|table| last_name(&table.name)),
        _ => None,
    }
}
