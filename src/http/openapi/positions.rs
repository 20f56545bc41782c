//! The schema of positions. Receipts and views contain positions of the event store, which knows nothing of this document.

use std::{borrow::Cow, collections::BTreeMap};

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, Ref, RefOr, Schema, Type},
};

/// The pattern of a position's text.
pub const POSITION_PATTERN: &str = "^([0-9]{1,18}|[0-9]{1,2}:[0-9]{1,18}(,[0-9]{1,2}:[0-9]{1,18})*)$";
const POSITION: &str = "Position";

/// The text of a position, in a query.
pub struct PositionText;

impl PartialSchema for PositionText {
    fn schema() -> RefOr<Schema> {
        let description = "A position of the log or of a view: `42`, or `0:42,3:17` in a log with several partitions. Opaque: \
             return it unchanged.";
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(POSITION_PATTERN));
        text.description(Some(description)).examples(["42"]).into()
    }
}

impl ToSchema for PositionText {
    fn name() -> Cow<'static, str> {
        POSITION.into()
    }
}

/// Makes every member `position` of an object a reference to the schema of positions.
pub fn refer_to_positions(schemas: &mut BTreeMap<String, RefOr<Schema>>) {
    for schema in schemas.values_mut() {
        let RefOr::T(Schema::Object(object)) = schema else { continue };
        if let Some(RefOr::T(Schema::Object(position))) = object.properties.get("position") {
            let mut reference = Ref::from_schema_name(POSITION);
            reference.description = position.description.clone().unwrap_or_default();
            object.properties.insert("position".to_owned(), reference.into());
        }
    }
}
