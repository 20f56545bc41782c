//! Tests that look into the tables are of one partition: in a log of several all their accounts are in the last one, and
//! positions and cursors are told as if there were no other. What is asked and answered is put into the other form here.

use passbook::event_store::Partitions;
use serde_json::{Value, json};

/// The one partition that such a test is about.
#[derive(Clone, Copy)]
pub struct Home {
    partitions: Partitions,
    pub partition: i16,
}

impl Home {
    pub fn of(partitions: Partitions) -> Option<Self> {
        partitions.are_several().then_some(Self { partitions, partition: partitions.count() - 1 })
    }

    /// An opening leads here, unless its key says where.
    pub fn opening(self, body: &mut Value, is_keyed: bool) {
        if body.is_object() && body.get("account_id").is_none() && !is_keyed {
            body["account_id"] = json!(self.partitions.new_id_in(self.partition));
        }
    }

    /// A path with its positions and cursors in this partition.
    pub fn asked(self, path: &str) -> String {
        let Some((before, query)) = path.split_once('?') else { return path.to_owned() };
        let asked = |parameter: &str| match parameter.split_once('=') {
            Some(("min_position", value)) => format!("min_position={}", self.place(value)),
            Some(("after", value)) if before.starts_with("/v1/events") => format!("after={}", self.place(value)),
            _ => parameter.to_owned(),
        };
        format!("{before}?{}", query.split('&').map(asked).collect::<Vec<_>>().join("&"))
    }

    /// A position or a cursor of the log; what is none stays as it is.
    pub fn place(self, text: &str) -> String {
        let (position, _) = text.split_once('-').unwrap_or((text, ""));
        let is_number = !position.is_empty() && position.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { format!("{}:{text}", self.partition) } else { text.to_owned() }
    }

    /// A position or a cursor as if there were no other partition.
    pub fn told(self, text: &str) -> String {
        let home = format!("{}:", self.partition);
        text.strip_prefix(&home)
            .or_else(|| text.strip_prefix("0:").filter(|rest| is_zero(rest)))
            .unwrap_or(text)
            .to_owned()
    }

    /// The same for a whole body.
    pub fn told_body(self, text: &str) -> String {
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
