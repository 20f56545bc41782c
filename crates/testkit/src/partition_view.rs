//! Shows a test one partition as if the log had no other. Tests that read tables use it to run unchanged on a log of
//! several partitions: all their accounts are in the last one. This module adds the partition to positions and cursors
//! in requests and removes it from those in responses.

use passbook_event_store::Partitions;
use serde_json::{Value, json};

/// The partition that a test sees.
#[derive(Clone, Copy)]
pub struct PartitionView {
    partitions: Partitions,
    /// Its number, from 0.
    pub partition: i16,
}

impl PartitionView {
    /// A view of the last partition; `None` if there is only one.
    pub fn of_last(partitions: Partitions) -> Option<Self> {
        partitions.is_partitioned().then_some(Self { partitions, partition: partitions.count() - 1 })
    }

    /// Gives an opening an account id in this partition. An idempotency key chooses the partition itself.
    pub fn assign_account_id(self, body: &mut Value, is_keyed: bool) {
        if body.is_object() && body.get("account_id").is_none() && !is_keyed {
            body["account_id"] = json!(self.partitions.new_id_in(self.partition));
        }
    }

    /// Adds the partition to the positions and cursors of a path.
    pub fn qualify_path(self, path: &str) -> String {
        let Some((before, query)) = path.split_once('?') else { return path.to_owned() };
        let qualify = |parameter: &str| match parameter.split_once('=') {
            Some(("min_position", value)) => format!("min_position={}", self.qualify(value)),
            Some(("after", value)) if before.starts_with("/v1/events") => format!("after={}", self.qualify(value)),
            _ => parameter.to_owned(),
        };
        format!("{before}?{}", query.split('&').map(qualify).collect::<Vec<_>>().join("&"))
    }

    /// Adds the partition to a position or cursor; leaves any other text unchanged.
    pub fn qualify(self, text: &str) -> String {
        let (position, _) = text.split_once('-').unwrap_or((text, ""));
        let is_number = !position.is_empty() && position.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { format!("{}:{text}", self.partition) } else { text.to_owned() }
    }

    /// Removes the partition from a position or cursor.
    pub fn strip(self, text: &str) -> String {
        let prefix = format!("{}:", self.partition);
        text.strip_prefix(&prefix)
            .or_else(|| text.strip_prefix("0:").filter(|rest| is_zero(rest)))
            .unwrap_or(text)
            .to_owned()
    }

    /// Removes the partition from every position and cursor of a JSON body.
    pub fn strip_body(self, text: &str) -> String {
        let mut text = text.to_owned();
        for member in ["position", "next"] {
            text = text.replace(&format!("\"{member}\":\"{}:", self.partition), &format!("\"{member}\":\""));
            for end in ["\"", "-"] {
                text = text.replace(&format!("\"{member}\":\"0:0{end}"), &format!("\"{member}\":\"0{end}"));
            }
        }
        text
    }
}

fn is_zero(rest: &str) -> bool {
    rest == "0" || rest.starts_with("0-")
}
