//! Compares every response that a test receives with the OpenAPI document: its status, headers, media type and body.
//!
//! The document is the contract of generated clients, so a value that it does not allow is a fault of the service or of the
//! document. A member or a header of the contract that is not documented is a fault, too.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{LazyLock, Mutex},
};

use regex::Regex;
use reqwest::Method;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::response::{Response, is_time};

/// Documented headers that a response may lack, with the statuses for which this holds; no status: all of them.
const OPTIONAL_HEADERS: [(&str, &[u16]); 6] = [
    ("Idempotency-Replayed", &[]),
    ("Vary", &[]),
    ("Content-Disposition", &[]),
    ("WWW-Authenticate", &[403]),
    ("Passbook-Position", &[503]),
    ("Preference-Applied", &[]),
];
/// The headers that a response of lines of JSON lacks, because it begins before anything is executed.
const NOT_WITH_LINES: [&str; 1] = ["Passbook-Position"];
/// The media type of lines of JSON.
const NDJSON: &str = "application/x-ndjson";
/// The headers of the contract. A response has one only if it is documented.
const HEADERS: [&str; 8] = [
    "etag",
    "location",
    "passbook-position",
    "idempotency-replayed",
    "retry-after",
    "www-authenticate",
    "content-disposition",
    "preference-applied",
];

static DOCUMENT: LazyLock<Document> = LazyLock::new(|| {
    Document(serde_json::from_str(&passbook::http::openapi_json()).expect("the OpenAPI document is JSON"))
});

/// Panics if the response to this request does not conform to the document. Paths outside of the document are not checked.
pub fn check_response(method: &Method, path: &str, response: &Response) {
    let Some(operation) = DOCUMENT.operation(method, path) else { return };
    if let Err(fault) = DOCUMENT.check(operation, response) {
        let body = String::from_utf8_lossy(&response.bytes);
        panic!("{method} {path} {} does not conform to the OpenAPI document: {fault}\n{body}", response.status);
    }
}

/// Panics if an event of the stream does not conform to the document.
pub fn check_event(event: &Value) {
    let schema = &DOCUMENT.0["components"]["schemas"]["Event"];
    if let Err(fault) = DOCUMENT.validate(schema, event, "event") {
        panic!("an event does not conform to the OpenAPI document: {fault}\n{event}");
    }
}

/// The compiled patterns of the document.
static PATTERNS: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);

struct Document(Value);

impl Document {
    /// The operation of a request. A path of fixed segments takes precedence over one with parameters.
    fn operation(&self, method: &Method, path: &str) -> Option<&Value> {
        let paths = self.0["paths"].as_object()?;
        let item =
            paths.get(path).or_else(|| paths.iter().find(|(template, _)| matches(template, path)).map(|found| found.1));
        item?.get(method.as_str().to_ascii_lowercase())
    }

    fn check(&self, operation: &Value, response: &Response) -> Result<(), String> {
        let documented = &operation["responses"][response.status.to_string()];
        if documented.is_null() {
            return Err("the status is not documented".to_owned());
        }
        self.check_headers(&documented["headers"], response)?;
        let Some(content) = documented["content"].as_object() else {
            return if response.bytes.is_empty() { Ok(()) } else { Err("a body is not documented".to_owned()) };
        };
        let media_type = response.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
        let schema =
            &content.get(media_type).ok_or(format!("the media type {media_type:?} is not documented"))?["schema"];
        match media_type {
            _ if response.header("content-encoding").is_some() => Ok(()),
            NDJSON => response.lines().iter().try_for_each(|line| self.validate(schema, line, "line")),
            json if json.ends_with("json") => self.validate(schema, &response.body, "body"),
            _ => Ok(()),
        }
    }

    fn check_headers(&self, documented: &Value, response: &Response) -> Result<(), String> {
        let empty = Map::new();
        let documented = documented.as_object().unwrap_or(&empty);
        let has_lines = response.header("content-type") == Some(NDJSON);
        for (name, header) in documented {
            if has_lines && NOT_WITH_LINES.contains(&name.as_str()) {
                continue;
            }
            let schema = &self.resolve(header)["schema"];
            let is_optional = OPTIONAL_HEADERS.iter().any(|(optional, statuses)| {
                optional == name && (statuses.is_empty() || statuses.contains(&response.status))
            });
            match response.header(&name.to_ascii_lowercase()) {
                Some(value) => self.validate(schema, &Value::from(value), name)?,
                None if is_optional => {}
                None => return Err(format!("the header {name} is missing")),
            }
        }
        let is_documented = |header: &str| documented.keys().any(|name| name.eq_ignore_ascii_case(header));
        match HEADERS.into_iter().find(|header| response.header(header).is_some() && !is_documented(header)) {
            Some(header) => Err(format!("the header {header} is not documented")),
            None => Ok(()),
        }
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
            Some(pointer) => self.0.pointer(pointer).unwrap_or_else(|| panic!("{pointer} does not resolve")),
            None => value,
        }
    }

    /// Checks a value against a schema. An object has only the members that its schema names.
    fn validate(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let parts = self.parts(schema);
        for part in &parts {
            self.validate_part(part, value, at)?;
        }
        let known: BTreeSet<&String> =
            parts.iter().filter_map(|part| part["properties"].as_object()).flat_map(Map::keys).collect();
        let is_open = known.is_empty() || parts.iter().any(|part| part["additionalProperties"].is_object());
        let unknown = value.as_object().into_iter().flat_map(Map::keys).find(|member| !known.contains(member));
        match unknown {
            Some(member) if !is_open => Err(format!("{at} has the member {member}, which is not documented")),
            Some(_) | None => Ok(()),
        }
    }

    /// The schema and those that it is composed of by `allOf`.
    fn parts<'a>(&'a self, schema: &'a Value) -> Vec<&'a Value> {
        let schema = self.resolve(schema);
        let all_of = schema["allOf"].as_array().into_iter().flatten();
        all_of.flat_map(|part| self.parts(part)).chain([schema]).collect()
    }

    fn validate_part(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        if let Some(mapping) = schema["discriminator"]["mapping"].as_object() {
            let name = &value[schema["discriminator"]["propertyName"].as_str().unwrap_or_default()];
            let selected = name.as_str().and_then(|name| mapping.get(name)).and_then(Value::as_str);
            let reference = selected.ok_or(format!("{at} has the undocumented type {name}"))?;
            return self.validate(&serde_json::json!({"$ref": reference}), value, at);
        }
        if let Some(branches) = schema["oneOf"].as_array() {
            let faults = branches.iter().map(|branch| self.validate(branch, value, at)).collect::<Vec<_>>();
            let matches = faults.iter().filter(|fault| fault.is_ok()).count();
            return if matches == 1 { Ok(()) } else { Err(format!("{at} matches {matches} branches: {faults:?}")) };
        }
        let types = &schema["type"];
        let has_type = |name: &Value| name.as_str().is_some_and(|name| is_of_type(value, name));
        if !types.is_null() && !has_type(types) && !types.as_array().is_some_and(|types| types.iter().any(has_type)) {
            return Err(format!("{at} is not of type {types}"));
        }
        if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
            return Err(format!("{at} is not one of {}", schema["enum"]));
        }
        validate_scalar(schema, value).map_err(|fault| format!("{at} {fault}"))?;
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            self.validate(&schema["items"], item, &format!("{at}[{index}]"))?;
        }
        let Some(members) = value.as_object() else { return Ok(()) };
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !members.contains_key(required) {
                return Err(format!("{at} lacks {required}"));
            }
        }
        for (name, member) in members {
            let schema = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
            if schema.is_object() {
                self.validate(schema, member, &format!("{at}.{name}"))?;
            }
        }
        Ok(())
    }
}

fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    let is_match =
        |(expected, segment): (&&str, &&str)| expected == segment || expected.starts_with('{') && !segment.is_empty();
    template.len() == path.len() && template.iter().zip(&path).all(is_match)
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}

fn is_match(pattern: &str, text: &str) -> bool {
    let mut patterns = PATTERNS.lock().unwrap();
    patterns.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).unwrap()).is_match(text)
}

/// Checks the pattern, the format and the range of a text or a number.
fn validate_scalar(schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(number) = value.as_i64() {
        let is_in_range = schema["minimum"].as_i64().is_none_or(|minimum| number >= minimum)
            && schema["maximum"].as_i64().is_none_or(|maximum| number <= maximum);
        return if is_in_range { Ok(()) } else { Err(format!("is out of range: {number}")) };
    }
    let Some(text) = value.as_str() else { return Ok(()) };
    let has_format = match schema["format"].as_str() {
        Some("uuid") => text.parse::<Uuid>().is_ok(),
        Some("date-time") => is_time(value),
        Some("date") => text.parse::<chrono::NaiveDate>().is_ok(),
        Some(_) | None => true,
    };
    let has_pattern = schema["pattern"].as_str().is_none_or(|pattern| is_match(pattern, text));
    if has_format && has_pattern { Ok(()) } else { Err(format!("does not have its format: {text:?}")) }
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
    use serde_json::json;

    use super::*;

    /// The result of the check of a response to `GET /v1/log/head`.
    fn checked(status: u16, headers: &[(&'static str, &'static str)], body: Value) -> Result<(), String> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let response = Response { status, headers, bytes: body.to_string().into_bytes(), body };
        DOCUMENT.check(DOCUMENT.operation(&Method::GET, "/v1/log/head").unwrap(), &response)
    }

    #[test]
    fn undocumented_or_missing_parts_of_a_response_are_faults() {
        let (kind, id) = (("content-type", "application/json"), ("x-request-id", "17"));
        let head = |position: Value| json!({"data": [{"partition": 3, "position": position, "hash": "00"}]});
        assert_eq!(checked(200, &[kind, id], head(json!("3:17"))), Ok(()));
        let faults = [
            (checked(200, &[kind, id], head(json!(17))), "not of type"),
            (checked(200, &[kind, id], head(json!("3;17"))), "format"),
            (checked(200, &[kind, id], json!({"data": [], "next": null})), "next"),
            (checked(200, &[kind, id], json!({})), "lacks data"),
            (checked(200, &[kind], head(json!("17"))), "x-request-id is missing"),
            (checked(200, &[kind, id, ("etag", "\"1\"")], head(json!("17"))), "etag is not documented"),
            (checked(200, &[("content-type", "text/csv"), id], head(json!("17"))), "media type"),
            (checked(418, &[kind, id], json!({})), "status is not documented"),
        ];
        for (fault, expected) in faults {
            assert!(fault.clone().is_err_and(|fault| fault.contains(expected)), "{expected}: {fault:?}");
        }
    }
}
