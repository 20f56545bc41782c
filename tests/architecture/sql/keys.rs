//! What a statement creates: keys, sequences and foreign keys.

use sqlparser::ast::{
    AlterTable, AlterTableOperation, ColumnDef, ColumnOption, CreateIndex, CreateTable, Expr, IndexColumn, Statement,
    TableConstraint,
};

use super::last_name;

/// The keys that do not begin with the partition.
pub fn keys_without_partition(statement: &Statement) -> Vec<String> {
    let mut found = Vec::new();
    match statement {
        Statement::CreateTable(CreateTable { name, columns, .. }) => {
            let is_partition = |first: &ColumnDef| {
                first.name.value == "partition" && first.data_type.to_string().eq_ignore_ascii_case("smallint")
            };
            if !columns.first().is_some_and(is_partition) {
                found.push(format!("the first column of {} is not `partition smallint`", last_name(name)));
            }
        }
        Statement::CreateIndex(CreateIndex { columns, .. }) if !begins_with_partition(columns) => {
            found.push("an index does not begin with partition".to_owned());
        }
        _ => {}
    }
    for column in columns(statement) {
        let is_key = |option: &ColumnOption| matches!(option, ColumnOption::PrimaryKey(_) | ColumnOption::Unique(_));
        if column.name.value != "partition" && column.options.iter().any(|option| is_key(&option.option)) {
            found.push(format!("{} is a key without partition", column.name));
        }
    }
    for constraint in constraints(statement) {
        let is_whole = match constraint {
            TableConstraint::PrimaryKey(key) => begins_with_partition(&key.columns),
            TableConstraint::Unique(key) => begins_with_partition(&key.columns),
            TableConstraint::Exclude(_) => false,
            _ => true,
        };
        if !is_whole {
            found.push(format!("{constraint} does not begin with partition"));
        }
    }
    found
}

fn begins_with_partition(columns: &[IndexColumn]) -> bool {
    let first = columns.first().map(|column| &column.column.expr);
    matches!(first, Some(Expr::Identifier(name)) if name.value == "partition")
}

/// The columns and constraints that reference another table.
pub fn foreign_keys(statement: &Statement) -> Vec<String> {
    let of_columns = columns(statement).into_iter().flat_map(|column| &column.options);
    let of_columns = of_columns
        .filter(|option| matches!(option.option, ColumnOption::ForeignKey(_)))
        .map(|option| option.to_string());
    let of_tables = constraints(statement).into_iter();
    let of_tables = of_tables
        .filter(|constraint| matches!(constraint, TableConstraint::ForeignKey(_)))
        .map(|constraint| constraint.to_string());
    of_columns.chain(of_tables).collect()
}

/// The sequences and the columns whose values Postgres generates.
pub fn sequences(statement: &Statement) -> Vec<String> {
    let is_generated = |column: &&ColumnDef| {
        column.data_type.to_string().to_lowercase().contains("serial")
            || column
                .options
                .iter()
                .any(|option| matches!(option.option, ColumnOption::Generated { .. } | ColumnOption::Identity(_)))
    };
    let mut found: Vec<String> = columns(statement).into_iter().filter(is_generated).map(ToString::to_string).collect();
    if matches!(statement, Statement::CreateSequence { .. }) {
        found.push(statement.to_string());
    }
    found
}

/// The columns that a statement adds.
pub fn columns(statement: &Statement) -> Vec<&ColumnDef> {
    match statement {
        Statement::CreateTable(CreateTable { columns, .. }) => columns.iter().collect(),
        _ => operations(statement)
            .iter()
            .filter_map(|operation| match operation {
                AlterTableOperation::AddColumn { column_def, .. } => Some(column_def),
                _ => None,
            })
            .collect(),
    }
}

fn constraints(statement: &Statement) -> Vec<&TableConstraint> {
    match statement {
        Statement::CreateTable(CreateTable { constraints, .. }) => constraints.iter().collect(),
        _ => operations(statement)
            .iter()
            .filter_map(|operation| match operation {
                AlterTableOperation::AddConstraint { constraint, .. } => Some(constraint),
                _ => None,
            })
            .collect(),
    }
}

/// The operations of ALTER TABLE.
pub fn operations(statement: &Statement) -> &[AlterTableOperation] {
    match statement {
        Statement::AlterTable(AlterTable { operations, .. }) => operations,
        _ => &[],
    }
}
