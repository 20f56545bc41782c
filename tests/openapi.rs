//! The OpenAPI document is the contract that clients are generated from: it is committed, it is what the binary prints,
//! and it leaves nobody guessing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{collections::HashSet, fs, path::Path, process::Command};

use serde_json::{Map, Value};

struct Operation {
    /// `POST /v1/accounts`
    name: String,
    value: Value,
}

fn printed() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_passbook")).arg("openapi").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn document() -> Value {
    serde_json::from_str(&printed()).unwrap()
}

fn members(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}"))
}

fn operations(document: &Value) -> Vec<Operation> {
    let operations: Vec<Operation> = members(&document["paths"])
        .iter()
        .flat_map(|(path, item)| {
            members(item)
                .iter()
                .map(move |(method, value)| Operation { name: format!("{method} {path}"), value: value.clone() })
        })
        .collect();
    assert!(operations.len() > 10, "only {} operations were found", operations.len());
    operations
}

fn says_something(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.trim().is_empty())
}

/// What a `$ref` leads to, or the value itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document
            .pointer(reference.strip_prefix('#').unwrap())
            .unwrap_or_else(|| panic!("{reference} leads nowhere")),
        None => value,
    }
}

#[test]
fn the_committed_document_is_what_the_binary_prints() {
    let committed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/openapi.json")).unwrap();
    assert!(committed == printed(), "openapi/openapi.json is stale: run `make openapi` and commit it");
}

#[test]
fn every_operation_has_a_summary_and_a_description() {
    for Operation { name, value } in operations(&document()) {
        assert!(says_something(&value["summary"]), "{name} has no summary");
        assert!(says_something(&value["description"]), "{name} has no description");
    }
}

#[test]
fn every_operation_has_an_id_of_its_own() {
    let mut ids = HashSet::new();
    for Operation { name, value } in operations(&document()) {
        let id = value["operationId"].as_str().unwrap_or_else(|| panic!("{name} has no operationId")).to_owned();
        assert!(ids.insert(id.clone()), "{name} shares the operationId {id}");
    }
}

#[test]
fn every_operation_with_a_body_shows_an_example() {
    let mut bodies = 0;
    for Operation { name, value } in operations(&document()) {
        if value["requestBody"].is_null() {
            continue;
        }
        for (kind, content) in members(&value["requestBody"]["content"]) {
            bodies += 1;
            let several = content["examples"].as_object().is_some_and(|examples| !examples.is_empty());
            assert!(several || content["example"].is_object(), "{name} shows no example of its {kind}");
        }
    }
    assert!(bodies > 5, "only {bodies} bodies were found");
}

#[test]
fn every_example_has_the_members_that_its_schema_requires_and_no_others() {
    let document = document();
    for Operation { name, value } in operations(&document) {
        let content = &value["requestBody"]["content"]["application/json"];
        if content.is_null() {
            continue;
        }
        let schema = resolved(&document, &content["schema"]);
        let several =
            content["examples"].as_object().into_iter().flat_map(Map::values).map(|example| &example["value"]);
        for example in several.chain(content.get("example")) {
            let given = members(example);
            for required in schema["required"].as_array().into_iter().flatten() {
                assert!(given.contains_key(required.as_str().unwrap()), "an example of {name} lacks {required}");
            }
            for member in given.keys() {
                assert!(!schema["properties"][member].is_null(), "an example of {name} has an unknown {member}");
            }
        }
    }
}

#[test]
fn every_refusal_is_a_problem() {
    let document = document();
    let mut refusals = 0;
    for Operation { name, value } in operations(&document) {
        for (status, response) in members(&value["responses"]) {
            if !status.starts_with(['4', '5']) {
                continue;
            }
            refusals += 1;
            let schema = &response["content"]["application/problem+json"]["schema"];
            let schema = resolved(&document, schema);
            for member in ["type", "title", "status", "detail", "instance", "code", "request_id"] {
                assert!(!schema["properties"][member].is_null(), "{name} {status} does not tell its {member}");
            }
            assert!(says_something(&response["description"]), "{name} {status} is not described");
        }
    }
    assert!(refusals > 50, "only {refusals} refusals were found");
}

#[test]
fn every_operation_under_v1_says_that_it_may_fail_for_a_reason_of_ours() {
    for Operation { name, value } in operations(&document()) {
        if name.contains("/v1/") {
            for status in ["500", "503"] {
                assert!(!value["responses"][status].is_null(), "{name} does not say that it may answer {status}");
            }
        }
    }
}

#[test]
fn every_parameter_is_described() {
    for Operation { name, value } in operations(&document()) {
        for parameter in value["parameters"].as_array().into_iter().flatten() {
            assert!(says_something(&parameter["description"]), "{name} does not describe {}", parameter["name"]);
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(document: &Value, value: &Value) -> usize {
        match value {
            Value::Object(members) => {
                let reference = members.get("$ref").is_some_and(Value::is_string);
                if reference {
                    resolved(document, value);
                }
                usize::from(reference) + members.values().map(|value| walk(document, value)).sum::<usize>()
            }
            Value::Array(values) => values.iter().map(|value| walk(document, value)).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        }
    }
    let document = document();
    assert!(walk(&document, &document) > 50);
}
