//! Tables of the members of JSON schemas.

use std::fmt::Write;

use serde_json::Value;

const SCHEMAS: &str = "#/components/schemas/";

/// A member of an object.
pub struct Member {
    pub name: String,
    pub is_required: bool,
    pub schema: Value,
}

/// The name of the schema that `$ref` names, directly or as the only alternative to `null`.
pub fn referenced(schema: &Value) -> &str {
    schema["$ref"].as_str().and_then(|reference| reference.strip_prefix(SCHEMAS)).unwrap_or_default()
}

/// The members of an object and of the objects that it extends, in their order.
pub fn members(schema: &Value, document: &Value) -> Vec<Member> {
    let name = referenced(schema);
    if !name.is_empty() {
        return members(&document["components"]["schemas"][name], document);
    }
    let inherited = schema["allOf"].as_array().into_iter().flatten().flat_map(|part| members(part, document));
    let is_required =
        |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|found| found == name));
    let own = schema["properties"].as_object().into_iter().flatten().map(|(name, schema)| Member {
        name: name.clone(),
        is_required: is_required(name),
        schema: schema.clone(),
    });
    inherited.chain(own).collect()
}

/// A table of the members, or a sentence if there are none. `page` is the page with the schemas; empty for the same page.
pub fn fields(schema: &Value, document: &Value, page: &str) -> String {
    let members = members(schema, document);
    if members.is_empty() {
        return "It has no members.\n".to_owned();
    }
    let mut table = "| member | type | meaning |\n|---|---|---|\n".to_owned();
    for Member { name, is_required, schema } in members {
        let optional = if is_required { "" } else { ", optional" };
        let meaning = cell(schema["description"].as_str().unwrap_or_default());
        writeln!(table, "| `{name}` | {}{optional} | {meaning} |", kind(&schema, page)).unwrap();
    }
    table
}

/// The type of a value, with a link to a schema that has a name.
pub fn kind(schema: &Value, page: &str) -> String {
    let name = referenced(schema);
    if !name.is_empty() {
        return format!("[{name}]({page}#{})", name.to_lowercase());
    }
    for alternatives in ["oneOf", "anyOf", "allOf"] {
        if let Some(parts) = schema[alternatives].as_array() {
            return parts.iter().map(|part| kind(part, page)).collect::<Vec<_>>().join(" or ");
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        return values
            .iter()
            .map(|value| format!("`{}`", value.as_str().unwrap_or("null")))
            .collect::<Vec<_>>()
            .join(", ");
    }
    let types: Vec<String> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::String(name) => vec![name.clone()],
        _ => vec!["any".to_owned()],
    };
    let format = schema["format"].as_str().filter(|format| !format.starts_with("int") && *format != "double");
    let named = types.iter().map(|name| match (name.as_str(), format) {
        ("array", _) => format!("array of {}", kind(&schema["items"], page)),
        ("string", Some(format)) => format.to_owned(),
        (name, _) => name.to_owned(),
    });
    named.collect::<Vec<_>>().join(" or ")
}

/// A text in one line of a table.
pub fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
