//! The OpenAPI document is the contract that clients are generated from. The committed file equals the output of the
//! binary, and every operation, parameter and error is described.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

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
    value.as_object().unwrap_or_else(|| panic!("not an object: {value}"))
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

fn is_nonempty_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.trim().is_empty())
}

/// The target of a `$ref`, or the value itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document
            .pointer(reference.strip_prefix('#').unwrap())
            .unwrap_or_else(|| panic!("{reference} does not resolve")),
        None => value,
    }
}

#[test]
fn the_committed_document_equals_the_output_of_the_binary() {
    let committed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/openapi.json")).unwrap();
    assert!(committed == printed(), "openapi/openapi.json is stale: run `make openapi` and commit it");
}

#[test]
fn every_operation_has_a_summary_and_a_description() {
    for Operation { name, value } in operations(&document()) {
        assert!(is_nonempty_text(&value["summary"]), "{name} has no summary");
        assert!(is_nonempty_text(&value["description"]), "{name} has no description");
    }
}

#[test]
fn every_operation_has_a_unique_camel_case_id() {
    let mut ids = HashSet::new();
    for Operation { name, value } in operations(&document()) {
        let id = value["operationId"].as_str().unwrap_or_else(|| panic!("{name} has no operationId")).to_owned();
        let is_camel_case = id.starts_with(|c: char| c.is_ascii_lowercase())
            && id.contains(|c: char| c.is_ascii_uppercase())
            && id.chars().all(|c| c.is_ascii_alphabetic());
        assert!(is_camel_case, "{name} has the operationId {id}, which is not a verb with a noun in camelCase");
        assert!(ids.insert(id.clone()), "{name} shares the operationId {id}");
    }
}

#[test]
fn every_operation_with_a_body_has_an_example() {
    let mut bodies = 0;
    for Operation { name, value } in operations(&document()) {
        if value["requestBody"].is_null() {
            continue;
        }
        for (kind, content) in members(&value["requestBody"]["content"]) {
            bodies += 1;
            let has_examples = content["examples"].as_object().is_some_and(|examples| !examples.is_empty());
            assert!(has_examples || content["example"].is_object(), "{name} has no example of its {kind}");
        }
    }
    assert!(bodies > 5, "only {bodies} bodies were found");
}

#[test]
fn every_example_has_the_required_members_and_no_unknown_ones() {
    let document = document();
    for Operation { name, value } in operations(&document) {
        let content = &value["requestBody"]["content"]["application/json"];
        if content.is_null() {
            continue;
        }
        let schema = resolved(&document, &content["schema"]);
        let examples =
            content["examples"].as_object().into_iter().flat_map(Map::values).map(|example| &example["value"]);
        for example in examples.chain(content.get("example")) {
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
fn every_error_response_is_a_problem_document() {
    let document = document();
    let mut errors = 0;
    for Operation { name, value } in operations(&document) {
        for (status, response) in members(&value["responses"]) {
            if !status.starts_with(['4', '5']) {
                continue;
            }
            errors += 1;
            let schema = &response["content"]["application/problem+json"]["schema"];
            // The schema of the operation's problems narrows `code` of the general one.
            let schema = resolved(&document, &resolved(&document, schema)["allOf"][0]);
            for member in ["type", "title", "status", "detail", "instance", "code", "request_id"] {
                assert!(!schema["properties"][member].is_null(), "{name} {status} has no member {member}");
            }
            assert!(is_nonempty_text(&response["description"]), "{name} {status} is not described");
        }
    }
    assert!(errors > 50, "only {errors} error responses were found");
}

#[test]
fn every_operation_documents_500_and_503() {
    for Operation { name, value } in operations(&document()) {
        for status in ["500", "503"] {
            assert!(!value["responses"][status].is_null(), "{name} does not document {status}");
        }
    }
}

#[test]
fn problems_of_an_operation_have_only_its_own_codes() {
    let document = document();
    let codes = |id: &str| -> Vec<String> {
        let schema = format!("/components/schemas/{id}Problem/allOf/1/properties/code/enum");
        document
            .pointer(&schema)
            .unwrap()
            .as_array()
            .unwrap()
            .iter()
            .map(|code| code.as_str().unwrap().into())
            .collect()
    };
    let opening = codes("OpenAccount");
    assert!(
        opening.contains(&"account_exists".into()) && !opening.contains(&"insufficient_funds".into()),
        "{opening:?}"
    );
    let head = codes("GetLogHead");
    assert!(!head.iter().any(|code| code == "account_not_found" || code == "projection_behind"), "{head:?}");
    let all: HashSet<String> = operations(&document)
        .iter()
        .flat_map(|operation| {
            let id = operation.value["operationId"].as_str().unwrap();
            codes(&format!("{}{}", id[..1].to_uppercase(), &id[1..]))
        })
        .collect();
    let known = document["components"]["schemas"]["ErrorCode"]["enum"].as_array().unwrap();
    let unused: Vec<&Value> = known.iter().filter(|code| !all.contains(code.as_str().unwrap())).collect();
    assert_eq!(unused, ["method_not_allowed"], "it is the only code of requests that match no operation");
}

#[test]
fn every_schema_is_used() {
    fn references<'a>(document: &'a Value, value: &'a Value, found: &mut HashSet<&'a str>) {
        if let Some(reference) = value["$ref"].as_str()
            && found.insert(reference)
        {
            references(document, resolved(document, value), found);
        }
        match value {
            Value::Object(members) => members.values().for_each(|value| references(document, value, found)),
            Value::Array(values) => values.iter().for_each(|value| references(document, value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = document();
    let mut found = HashSet::new();
    references(&document, &document["paths"], &mut found);
    for name in members(&document["components"]["schemas"]).keys() {
        assert!(found.contains(&*format!("#/components/schemas/{name}")), "{name} is not used");
    }
}

#[test]
fn rows_of_lists_are_references() {
    let document = document();
    let mut lists = 0;
    for (name, schema) in members(&document["components"]["schemas"]) {
        for (member, property) in schema["properties"].as_object().into_iter().flatten() {
            if property["type"] == "array" {
                lists += 1;
                assert!(property["items"]["$ref"].is_string(), "{name}.{member} repeats the schema of its rows");
            }
        }
    }
    assert!(lists > 10, "only {lists} lists were found");
}

#[test]
fn members_of_responses_that_can_be_null_are_always_sent() {
    let document = document();
    for (name, schema) in members(&document["components"]["schemas"]) {
        let is_request = schema["additionalProperties"] == false;
        for (member, property) in schema["properties"].as_object().into_iter().flatten().filter(|_| !is_request) {
            let can_be_null = property["type"].as_array().is_some_and(|types| types.contains(&"null".into()))
                || property["oneOf"]
                    .as_array()
                    .is_some_and(|branches| branches.iter().any(|one| one["type"] == "null"));
            let is_required =
                schema["required"].as_array().is_some_and(|required| required.contains(&(&**member).into()));
            assert!(!can_be_null || is_required, "{name}.{member} is null or absent: clients need to know which");
        }
    }
}

#[test]
fn every_event_type_has_a_schema_of_its_data() {
    let document = document();
    let event = &document["components"]["schemas"]["Event"];
    assert_eq!(event["discriminator"]["propertyName"], "type");
    let types = members(&event["discriminator"]["mapping"]);
    assert_eq!(types.len(), event["oneOf"].as_array().unwrap().len());
    for (event_type, reference) in types {
        let schema = document.pointer(&reference.as_str().unwrap()[1..]).unwrap();
        assert_eq!(schema["properties"]["type"]["enum"], serde_json::json!([event_type]));
        assert_eq!(resolved(&document, &schema["properties"]["data"])["type"], "object", "{event_type}");
    }
    let stream = &document["paths"]["/v1/events/stream"]["get"]["responses"]["200"]["content"]["text/event-stream"];
    assert_eq!(stream["schema"]["$ref"], "#/components/schemas/Event");
}

#[test]
fn every_position_has_the_schema_of_positions() {
    let document = document();
    for Operation { name, value } in operations(&document) {
        for parameter in value["parameters"].as_array().into_iter().flatten() {
            if parameter["name"] == "min_position" {
                assert_eq!(parameter["schema"]["$ref"], "#/components/schemas/Position", "{name}");
            }
        }
    }
    for (name, schema) in members(&document["components"]["schemas"]) {
        let position = &schema["properties"]["position"];
        assert!(position.is_null() || position["$ref"] == "#/components/schemas/Position", "{name}");
    }
}

#[test]
fn every_parameter_is_described() {
    for Operation { name, value } in operations(&document()) {
        for parameter in value["parameters"].as_array().into_iter().flatten() {
            assert!(is_nonempty_text(&parameter["description"]), "{name} does not describe {}", parameter["name"]);
        }
    }
}

#[test]
fn every_reference_resolves() {
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
