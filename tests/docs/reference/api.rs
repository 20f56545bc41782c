//! The page of the HTTP API: every operation with its parameters, its body and its answers, and the schemas that they name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use serde_json::{Map, Value};

use super::schema::{cell, fields, kind, members, referenced};

/// The page, without its title.
pub fn page(document: &Value) -> String {
    let mut text = "Conventions: JSON in UTF-8; times are RFC 3339 in UTC; amounts are integers in the minor unit of the currency; sums \
        are strings of digits. Unknown fields and parameters are refused. Every answer has `x-request-id`. [Error codes](errors.md) \
        have a page of their own, and so have [events](events.md). The same document for programs is `/openapi.json`; \
        [clients](../clients.md) can be generated from it.\n"
        .to_owned();
    let mut schemas = BTreeSet::new();
    for tag in document["tags"].as_array().into_iter().flatten() {
        let name = tag["name"].as_str().unwrap();
        writeln!(text, "\n## {name}\n\n{}", tag["description"].as_str().unwrap_or_default()).unwrap();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                if operation["tags"][0] == name {
                    text += &self::operation(
                        &format!("{} {path}", method.to_uppercase()),
                        operation,
                        document,
                        &mut schemas,
                    );
                }
            }
        }
    }
    text + &self::schemas(schemas, document)
}

fn operation(name: &str, operation: &Value, document: &Value, schemas: &mut BTreeSet<String>) -> String {
    let (id, summary) = (operation["operationId"].as_str().unwrap(), operation["summary"].as_str().unwrap());
    let description = operation["description"].as_str().unwrap_or_default();
    let mut text = format!("\n### {id}\n\n`{name}`: {summary}.\n\n{description}\n");
    text += &parameters(operation);
    for (media_type, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        let body = kind(&content["schema"], "");
        writeln!(text, "\nBody, `{media_type}`: {body}\n").unwrap();
        let named = &document["components"]["schemas"][referenced(&content["schema"])];
        if !members(named, document).is_empty() {
            text += &fields(named, document, "");
        }
        collect(&content["schema"], schemas);
    }
    text + &answers(&operation["responses"], schemas)
}

fn parameters(operation: &Value) -> String {
    let Some(parameters) = operation["parameters"].as_array().filter(|parameters| !parameters.is_empty()) else {
        return String::new();
    };
    let mut table = "\n| parameter | in | type | meaning |\n|---|---|---|---|\n".to_owned();
    for parameter in parameters {
        let name = parameter["name"].as_str().unwrap();
        let optional = if parameter["required"] == true { "" } else { ", optional" };
        let (place, kind) = (parameter["in"].as_str().unwrap(), kind(&parameter["schema"], ""));
        let meaning = cell(parameter["description"].as_str().unwrap_or_default());
        writeln!(table, "| `{name}` | {place} | {kind}{optional} | {meaning} |").unwrap();
    }
    table
}

/// The successful answers in a table, then the codes of the others.
fn answers(responses: &Value, schemas: &mut BTreeSet<String>) -> String {
    let mut table = "\n| status | answer | body |\n|---|---|---|\n".to_owned();
    let mut errors: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (status, response) in responses.as_object().unwrap() {
        let description = response["description"].as_str().unwrap_or_default();
        if status.starts_with(['4', '5']) {
            let codes = description.split("\n\n").filter_map(|part| part.strip_prefix('`')?.split_once('`'));
            errors.insert(status, codes.map(|(code, _)| format!("[`{code}`](errors.md#{code})")).collect());
            continue;
        }
        let mut kinds = BTreeSet::new();
        for (media_type, content) in response["content"].as_object().unwrap_or(&Map::new()) {
            collect(&content["schema"], schemas);
            let named = kind(&content["schema"], "");
            kinds.insert(if media_type == "application/json" { named } else { format!("`{media_type}`") });
        }
        writeln!(table, "| {status} | {} | {} |", cell(description), kinds.into_iter().collect::<Vec<_>>().join(", "))
            .unwrap();
    }
    let errors: Vec<String> =
        errors.into_iter().map(|(status, codes)| format!("{status} {}", codes.join(", "))).collect();
    format!("{table}\nErrors: {}.\n", errors.join("; "))
}

/// Adds the names of the schemas to which a schema refers.
fn collect(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            let name = referenced(schema);
            if !name.is_empty() {
                names.insert(name.to_owned());
            }
            object.values().for_each(|value| collect(value, names));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, names)),
        _ => {}
    }
}

fn schemas(mut waiting: BTreeSet<String>, document: &Value) -> String {
    let mut texts = BTreeMap::new();
    while let Some(name) = waiting.pop_first() {
        if texts.contains_key(&name) {
            continue;
        }
        let schema = &document["components"]["schemas"][&name];
        let mut used = BTreeSet::new();
        collect(schema, &mut used);
        waiting.extend(used.into_iter().filter(|used| !texts.contains_key(used)));
        texts.insert(name, described(schema, document));
    }
    let mut text = "\n## Schemas\n".to_owned();
    for (name, described) in texts {
        writeln!(text, "\n### {name}\n\n{}", described.trim()).unwrap();
    }
    text
}

fn described(schema: &Value, document: &Value) -> String {
    let description = schema["description"].as_str().unwrap_or_default();
    let content = if members(schema, document).is_empty() {
        format!("{}.", kind(schema, ""))
    } else {
        fields(schema, document, "")
    };
    format!("{description}\n\n{content}")
}
