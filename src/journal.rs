//! Writes the journal of the books as lines of JSON, or for hledger.

use std::{collections::BTreeSet, fmt::Write};

use clap::ValueEnum;

use crate::hledger;
use passbook_domain::{books::LedgerAccount, money::Currency};
use passbook_read_model::{JournalEntry, JournalPeriod};

/// A format of the journal, as the parameter `format` and the option `--format` name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JournalFormat {
    /// One JSON object a line; amounts in minor units.
    #[default]
    Jsonl,
    /// A journal of hledger; amounts in major units.
    Hledger,
}

impl JournalFormat {
    /// All formats. The first one is the default.
    pub const ALL: [Self; 2] = [Self::Jsonl, Self::Hledger];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Hledger => "hledger",
        }
    }

    /// The media type without parameters.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jsonl => "application/x-ndjson",
            Self::Hledger => "text/x-hledger",
        }
    }

    /// The value of the header `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Jsonl => self.media_type(),
            Self::Hledger => "text/x-hledger; charset=utf-8",
        }
    }

    /// The end of the name of a file.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Hledger => "journal",
        }
    }
}

/// Writes a journal in one format. Its memory does not grow with the journal.
#[derive(Debug)]
pub struct JournalWriter {
    format: JournalFormat,
    /// The currencies that the journal of hledger has declared.
    declared: BTreeSet<&'static str>,
}

impl JournalWriter {
    /// A writer of a new journal.
    pub fn new(format: JournalFormat) -> Self {
        Self { format, declared: BTreeSet::new() }
    }

    /// Writes the part before the entries.
    pub fn write_head(&self, period: JournalPeriod, bytes: &mut Vec<u8>) {
        match self.format {
            JournalFormat::Jsonl => {}
            JournalFormat::Hledger => bytes.extend(hledger_head(period).as_bytes()),
        }
    }

    /// Writes further entries.
    pub fn write_entries(&mut self, entries: &[JournalEntry], bytes: &mut Vec<u8>) {
        for entry in entries {
            match self.format {
                JournalFormat::Jsonl => {
                    serde_json::to_writer(&mut *bytes, entry).expect("writing a plain value to memory cannot fail");
                    bytes.push(b'\n');
                }
                JournalFormat::Hledger => {
                    self.declare(entry.currency, bytes);
                    bytes.extend(transaction(entry).as_bytes());
                }
            }
        }
    }

    /// Writes the directive of a currency before its first use.
    fn declare(&mut self, currency: Currency, bytes: &mut Vec<u8>) {
        if self.declared.insert(currency.code()) {
            bytes.extend(hledger::commodity(currency).as_bytes());
            bytes.push(b'\n');
        }
    }
}

fn hledger_head(period: JournalPeriod) -> String {
    let mut head = "; Journal of the books".to_owned();
    // Writing to a String cannot fail.
    let _ = period.from.map(|from| write!(head, ", from {from}"));
    let _ = period.to.map(|to| write!(head, ", before {to}"));
    let _ = write!(head, "\n{}", hledger::HEAD);
    for account in LedgerAccount::ALL {
        let _ = writeln!(head, "account {}", account.name());
    }
    head.push('\n');
    head
}

fn transaction(entry: &JournalEntry) -> String {
    let description = entry.reference.as_deref().map(hledger::description).filter(|text| !text.is_empty());
    let mut text = format!(
        "{day} * ({position}) {description}\n    ; kind:{kind}, account:{account}, version:{version}, event:{event}",
        day = entry.date,
        position = entry.position,
        description = description.unwrap_or_else(|| label(entry.kind)),
        kind = entry.kind,
        account = entry.account_id,
        version = entry.version,
        event = entry.event_id,
    );
    let tags =
        [("transfer", entry.transfer_id), ("counterparty", entry.counterparty_account_id), ("hold", entry.hold_id)];
    // Writing to a String cannot fail.
    for (tag, id) in tags {
        let _ = id.map(|id| write!(text, ", {tag}:{id}"));
    }
    let _ = entry.reverses_version.map(|version| write!(text, ", reverses:{version}"));
    text.push('\n');
    for posting in entry.postings {
        let amount = hledger::amount(posting.debit - posting.credit, entry.currency);
        let _ = writeln!(text, "    {}  {amount}", posting.ledger_account);
    }
    text.push('\n');
    text
}

/// The kind of a transaction in English.
pub(crate) fn label(kind: &str) -> String {
    let text = kind.replace('_', " ");
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}
