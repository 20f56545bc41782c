//! Values of columns for statements that write many rows. Columns of type `json` are sent as text.

use serde::Serialize;

/// How many rows one statement writes.
pub(crate) const WRITTEN_ROWS_MAX: usize = 10_000;

/// The JSON text of a value.
///
/// # Panics
/// The value is not JSON. The domain's own values always are.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("the value is JSON")
}

/// The JSON text of a value; `None` for the default value, which nullable columns do not store.
pub(crate) fn json_unless_default<T: Default + PartialEq + Serialize>(value: &T) -> Option<String> {
    (*value != T::default()).then(|| json(value))
}

/// The values of a column that is null in most rows. It is empty if all are null: `unnest` in a select list then yields nulls, and the
/// statement parses and unnests nothing.
pub(crate) fn sparse<T>(values: impl Iterator<Item = Option<T>>) -> Vec<Option<T>> {
    let values: Vec<Option<T>> = values.collect();
    if values.iter().any(Option::is_some) { values } else { vec![] }
}
