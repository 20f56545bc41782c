//! Finds the tables of a statement that it does not restrict to one partition by an equality.

use std::{collections::BTreeMap, ops::ControlFlow};

use sqlparser::ast::{
    BinaryOperator, Delete, Expr, FromTable, Insert, Join, JoinConstraint, JoinOperator, Select, SelectItem, SetExpr,
    Statement, TableFactor, TableObject, TableWithJoins, Update, UpdateTableFromKind, Value, Visit, Visitor,
};

use super::{Schema, last_name};

/// What may restrict the partition of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A value, or the partition of a table that is restricted itself.
    Equality,
    /// A value only.
    Value,
}

/// The references to tables that are not restricted to one partition.
pub fn unrestricted(statement: &Statement, schema: &Schema, by: By) -> Vec<String> {
    let mut finder = Finder { schema, by, levels: Vec::new(), found: Vec::new() };
    let _ = statement.visit(&mut finder);
    finder.found
}

/// One FROM clause.
#[derive(Default)]
struct Level {
    /// The tables by their names in the statement, and whether each is restricted to one partition.
    tables: BTreeMap<String, bool>,
    /// Whether `USING (partition)` joins the tables, so that a bare `partition` is that of all of them.
    is_merged: bool,
}

struct Finder<'a> {
    schema: &'a Schema,
    by: By,
    /// The FROM clauses that enclose the visited part, the outermost first.
    levels: Vec<Level>,
    found: Vec<String>,
}

impl Visitor for Finder<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        self.enter(&select.from.iter().collect::<Vec<_>>(), select.selection.as_ref());
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &Select) -> ControlFlow<()> {
        self.levels.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        match statement {
            Statement::Update(Update { table, from, selection, .. }) => {
                let from = match from {
                    Some(UpdateTableFromKind::BeforeSet(from) | UpdateTableFromKind::AfterSet(from)) => from.as_slice(),
                    None => &[],
                };
                self.enter(&[table].into_iter().chain(from).collect::<Vec<_>>(), selection.as_ref());
            }
            Statement::Delete(Delete { from, using, selection, .. }) => {
                let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = from;
                self.enter(&from.iter().chain(using.iter().flatten()).collect::<Vec<_>>(), selection.as_ref());
            }
            Statement::Insert(insert) => {
                self.found.extend(insert_without_partition(insert, self.schema));
                self.levels.push(Level::default());
            }
            _ => self.levels.push(Level::default()),
        }
        ControlFlow::Continue(())
    }

    fn post_visit_statement(&mut self, _: &Statement) -> ControlFlow<()> {
        self.levels.pop();
        ControlFlow::Continue(())
    }
}

impl Finder<'_> {
    /// Judges the tables of a FROM clause. Enclosing clauses count, because a LATERAL subquery compares with their tables.
    fn enter(&mut self, from: &[&TableWithJoins], selection: Option<&Expr>) {
        let mut clause = Clause { schema: self.schema, level: Level::default(), conditions: Vec::new() };
        from.iter().for_each(|part| clause.add(part));
        clause.conditions.extend(selection.map(|condition| (condition, None)));
        let conditions: Vec<_> =
            clause.conditions.iter().flat_map(|(all, only)| equalities(all, only.as_deref())).collect();
        self.levels.push(clause.level);
        while conditions.iter().any(|equality| self.restrict(equality)) {}
        let level = self.levels.last().expect("it was pushed");
        let unrestricted = level.tables.iter().filter(|(_, is_restricted)| !**is_restricted);
        self.found.extend(unrestricted.map(|(table, _)| table.clone()));
    }

    /// Whether an equality newly restricts a table of the innermost clause.
    fn restrict(&mut self, equality: &Equality) -> bool {
        let sides = [(equality.left, equality.right), (equality.right, equality.left)];
        sides.into_iter().any(|(column, other)| {
            let is_restricted_table = || self.tables_of(other).iter().any(|other| self.is_restricted(other));
            let is_one = is_value(other) || (self.by == By::Equality && is_restricted_table());
            let tables =
                self.tables_of(column).into_iter().filter(|table| equality.only.is_none_or(|only| only == table));
            let level = self.levels.last_mut().expect("it was pushed");
            // Not `any`, which would stop at the first table.
            let changed = tables.filter(|table| {
                let is_restricted = level.tables.get_mut(table);
                is_one && is_restricted.is_some_and(|is_restricted| !std::mem::replace(is_restricted, true))
            });
            changed.count() > 0
        })
    }

    fn is_restricted(&self, table: &str) -> bool {
        self.levels.iter().rev().find_map(|level| level.tables.get(table)).copied().unwrap_or(false)
    }

    /// The tables whose partition an expression is.
    fn tables_of(&self, expression: &Expr) -> Vec<String> {
        match expression {
            Expr::Identifier(column) if column.value == "partition" => {
                let level = self.levels.last().expect("a FROM clause was entered");
                let is_clear = level.is_merged || level.tables.len() == 1;
                level.tables.keys().filter(|_| is_clear).cloned().collect()
            }
            Expr::CompoundIdentifier(path) => match path.as_slice() {
                [table, column] if column.value == "partition" => vec![table.value.clone()],
                _ => Vec::new(),
            },
            Expr::Nested(inner) => self.tables_of(inner),
            _ => Vec::new(),
        }
    }
}

/// A FROM clause with its conditions.
struct Clause<'a> {
    schema: &'a Schema,
    level: Level,
    /// Conditions, and the only table that each can restrict.
    conditions: Vec<(&'a Expr, Option<String>)>,
}

impl<'a> Clause<'a> {
    fn add(&mut self, part: &'a TableWithJoins) {
        self.add_factor(&part.relation);
        for Join { relation, join_operator, .. } in &part.joins {
            let joined = self.add_factor(relation);
            match join_operator {
                JoinOperator::Join(JoinConstraint::On(condition))
                | JoinOperator::Inner(JoinConstraint::On(condition)) => {
                    self.conditions.push((condition, None));
                }
                // The rows of the other side stay, whatever the condition says about them.
                JoinOperator::Left(JoinConstraint::On(condition))
                | JoinOperator::LeftOuter(JoinConstraint::On(condition)) => {
                    self.conditions.push((condition, Some(joined.unwrap_or_default())));
                }
                JoinOperator::Join(JoinConstraint::Using(columns))
                | JoinOperator::Inner(JoinConstraint::Using(columns)) => {
                    self.level.is_merged |= columns.iter().any(|column| last_name(column) == "partition");
                }
                _ => {}
            }
        }
    }

    /// Adds a table, and returns its name in the statement.
    fn add_factor(&mut self, factor: &'a TableFactor) -> Option<String> {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } if self.schema.tables.contains(&last_name(name)) => {
                let name = alias.as_ref().map_or_else(|| last_name(name), |alias| alias.name.value.clone());
                self.level.tables.insert(name.clone(), false);
                Some(name)
            }
            TableFactor::NestedJoin { table_with_joins, .. } => {
                self.add(table_with_joins);
                None
            }
            _ => None,
        }
    }
}

/// Two sides that are equal in every row.
struct Equality<'a> {
    left: &'a Expr,
    right: &'a Expr,
    only: Option<&'a str>,
}

/// The equalities that a condition requires.
fn equalities<'a>(condition: &'a Expr, only: Option<&'a str>) -> Vec<Equality<'a>> {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            [equalities(left, only), equalities(right, only)].into_iter().flatten().collect()
        }
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => vec![Equality { left, right, only }],
        Expr::Nested(inner) => equalities(inner, only),
        _ => Vec::new(),
    }
}

/// Whether an expression is one value for the whole statement: a parameter, a number, or the parameter of a function.
fn is_value(expression: &Expr) -> bool {
    match expression {
        Expr::Value(value) => matches!(value.value, Value::Placeholder(_) | Value::Number(..)),
        Expr::Identifier(name) => name.value.starts_with("p_"),
        Expr::Cast { expr, .. } => is_value(expr),
        Expr::Nested(inner) => is_value(inner),
        _ => false,
    }
}

/// The table of an INSERT whose first column is not one partition.
fn insert_without_partition(insert: &Insert, schema: &Schema) -> Option<String> {
    let TableObject::TableName(table) = &insert.table else { return None };
    let table = last_name(table);
    let is_first = insert.columns.first().is_none_or(|first| last_name(first) == "partition");
    let value = insert.source.as_ref().and_then(|source| match source.body.as_ref() {
        SetExpr::Values(values) => values.rows.first().and_then(|row| row.content.first()),
        SetExpr::Select(select) => match select.projection.first() {
            Some(SelectItem::UnnamedExpr(first) | SelectItem::ExprWithAlias { expr: first, .. }) => Some(first),
            _ => None,
        },
        _ => None,
    });
    // The partition of a table that the SELECT reads, which is restricted itself.
    let is_column = |value: &Expr| matches!(value, Expr::Identifier(column) if column.value == "partition");
    let is_one = value.is_some_and(|value| is_value(value) || is_column(value));
    (schema.tables.contains(&table) && !(is_first && is_one)).then_some(table)
}
