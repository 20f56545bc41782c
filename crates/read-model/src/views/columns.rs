//! Values for columns of type `json`, which are sent as text.

use serde::Serialize;

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
