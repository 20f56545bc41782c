//! What a process says when it fails: the reason why it ends, and panics. Both have the format of its log lines.

use std::{
    env, panic,
    sync::atomic::{AtomicBool, Ordering},
};

use chrono::{SecondsFormat, Utc};
use serde_json::json;

/// The setting of the log's format, for a process that fails before it has read its settings.
const FORMAT_SETTING: &str = "PASSBOOK_LOG_FORMAT";
/// Its value for lines of JSON.
const JSON: &str = "json";

/// Whether log lines are JSON, once logging has started.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Sets the format of later failures, and logs panics where it is JSON. The runtime prints them as text otherwise.
pub(crate) fn report_as_json(is_json: bool) {
    IS_JSON.store(is_json, Ordering::Relaxed);
    if is_json {
        panic::set_hook(Box::new(|panic| {
            let location = panic.location().map(ToString::to_string);
            let reason = panic.payload_as_str().unwrap_or_default();
            tracing::error!(location, reason, "panicked");
        }));
    }
}

/// Prints to standard error why the process ends. It is written at once: the log may be closed.
pub fn report_failure(reason: &str) {
    let is_json = IS_JSON.load(Ordering::Relaxed) || env::var(FORMAT_SETTING).is_ok_and(|format| format == JSON);
    eprintln!("{}", failure_line(reason, is_json));
}

fn failure_line(reason: &str, is_json: bool) -> String {
    if !is_json {
        return format!("passbook: {reason}");
    }
    let timestamp = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
    let line = json!({
        "timestamp": timestamp, "level": "ERROR", "message": "process failed", "reason": reason, "target": "passbook",
    });
    line.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_of_json_or_text() {
        assert_eq!(failure_line("no \"disk\"", false), "passbook: no \"disk\"");
        let line = failure_line("one\ntwo", true);
        assert_eq!(line.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
        assert_eq!(line["reason"], "one\ntwo");
        assert_eq!(line["level"], "ERROR");
    }
}
