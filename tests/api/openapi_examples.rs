//! The examples of the OpenAPI document are requests that succeed on an empty bank, unchanged and in the order in which Swagger UI
//! shows them. The tests of the console send the same examples from the page.

use std::collections::HashMap;

use passbook_testkit::{App, http_client, spawn_app_with};
use reqwest::{Method, Url};
use serde_json::{Map, Value};

/// Sends every example and returns the number of requests. Deletions are the last ones of their tag.
async fn send_examples(app: &App) -> usize {
    let document: Value = app.client().get("/openapi.json").await.expect(200).body;
    let mut assigned = HashMap::new();
    let mut sent = 0;
    for (tag, deletes) in document["tags"].as_array().unwrap().iter().flat_map(|tag| [(tag, false), (tag, true)]) {
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let has_tag = operation["tags"].as_array().unwrap().contains(&tag["name"]);
                if !has_tag || (method == "delete") != deletes {
                    continue;
                }
                for (media_type, body) in all_bodies(operation) {
                    let request = request(app, &assigned, path, method, operation);
                    let request = match &body {
                        Some(body) => request.header("content-type", &media_type).body(body.to_string()),
                        None => request,
                    };
                    // A person is slower than the projector.
                    app.wait_until_projected().await;
                    let response = request.send().await.unwrap();
                    let status = response.status();
                    let is_endless = operation["operationId"] == "streamEvents";
                    let text = if is_endless { String::new() } else { response.text().await.unwrap() };
                    assert!(status.is_success(), "{method} {path} {body:?}: {status} {text}");
                    let is_line = media_type == "application/x-ndjson";
                    assert!(!is_line || text.contains("\"status\":201"), "{method} {path} {body:?}: {text}");
                    remember_ids(&mut assigned, &text);
                    sent += 1;
                }
            }
        }
    }
    sent
}

/// The example bodies of an operation, each with its media type.
fn all_bodies(operation: &Value) -> Vec<(String, Option<Value>)> {
    let content = operation["requestBody"]["content"].as_object();
    let Some(content) = content else { return vec![(String::new(), None)] };
    content
        .iter()
        .flat_map(|(media_type, content)| examples(content).into_iter().map(|body| (media_type.clone(), body)))
        .collect()
}

/// The example bodies of an operation in JSON. Swagger UI selects the first one.
fn bodies(operation: &Value) -> Vec<Option<Value>> {
    examples(&operation["requestBody"]["content"]["application/json"])
}

fn examples(content: &Value) -> Vec<Option<Value>> {
    let named = content["examples"].as_object().into_iter().flat_map(Map::values).map(|example| &example["value"]);
    let bodies: Vec<_> = named.chain(content.get("example")).cloned().map(Some).collect();
    if bodies.is_empty() { vec![None] } else { bodies }
}

/// A request with the example or default of each parameter. A path parameter without an example has the id of an earlier response.
fn request(
    app: &App,
    assigned: &HashMap<String, String>,
    path: &str,
    method: &str,
    operation: &Value,
) -> reqwest::RequestBuilder {
    let mut path = path.to_owned();
    let (mut query, mut headers) = (Vec::new(), Vec::new());
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap();
        let example = parameter.get("example").or(parameter["schema"].get("default"));
        // An object has a parameter for each member.
        if let Some(members) = example.and_then(Value::as_object) {
            query.extend(members.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap().to_owned())));
            continue;
        }
        let example = example.map(|value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned));
        match parameter["in"].as_str() {
            Some("path") => {
                let value = example.or_else(|| assigned.get(name).cloned());
                let value = value.unwrap_or_else(|| panic!("{path} has no example of {name}"));
                path = path.replace(&format!("{{{name}}}"), &value);
            }
            Some("query") => query.extend(example.map(|value| (name, value))),
            Some("header") => headers.extend(example.map(|value| (name, value))),
            other => panic!("a parameter in {other:?}"),
        }
    }
    let url = Url::parse_with_params(&format!("{}{path}", app.url()), query).unwrap();
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
    let request = http_client().build().unwrap().request(method, url);
    headers.into_iter().fold(request, |request, (name, value)| request.header(name, value))
}

fn remember_ids(assigned: &mut HashMap<String, String>, response: &str) {
    if let Ok(Value::Object(members)) = serde_json::from_str(response) {
        let of_hold = members.get("hold").and_then(Value::as_object).into_iter().flatten();
        let ids = of_hold.chain(&members).filter(|(name, _)| name.ends_with("_id"));
        assigned.extend(ids.filter_map(|(name, id)| Some((name.clone(), id.as_str()?.to_owned()))));
    }
}

#[tokio::test]
async fn examples_of_the_document_succeed_in_order_on_an_empty_bank() {
    for partitions in ["--partitions=1", "--partitions=4"] {
        let app = spawn_app_with(&[partitions, "--webhooks-allow-private"]).await;
        let sent = send_examples(&app).await;
        assert!(sent > 30, "only {sent} examples were sent");
    }
}

#[tokio::test]
async fn preselected_opening_is_of_the_account_of_the_other_examples() {
    let app = spawn_app_with(&[]).await;
    let document: Value = app.client().get("/openapi.json").await.expect(200).body;
    let opened = bodies(&document["paths"]["/v1/accounts"]["post"])[0].clone().unwrap();
    for path in ["deposits", "withdrawals", "freeze", "unfreeze"] {
        let operation = &document["paths"][format!("/v1/accounts/{{account_id}}/{path}")]["post"];
        assert_eq!(operation["parameters"][0]["example"], opened["account_id"], "{path}");
    }
}
