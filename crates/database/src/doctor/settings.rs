//! Compares the settings of a server with those that a commit's durability needs, and with those recommended for its machine.

use std::collections::HashMap;

use sqlx::{PgConnection, query_as};

use super::report::{Finding, Verdict};
use passbook_embedded_postgres::{
    Machine,
    tuning::{self, Recommendation, Value},
};

/// A size or duration is far from the recommended one if it differs by more than this factor.
const FAR: u64 = 2;
/// The same for numbers without unit, as a difference.
const FAR_NUMBER: f64 = 0.1;

/// Settings that are on or off: name, verdict if it is off, reason.
const SWITCHES: [(&str, Verdict, &str); 5] = [
    ("fsync", Verdict::Unsafe, "Without it a crash of the machine loses and damages committed data."),
    ("full_page_writes", Verdict::Unsafe, "Without it a crash of the machine can leave pages that are half written."),
    (
        "synchronous_commit",
        Verdict::Unsafe,
        "Passbook turns it on for events. Migrations and other programs use the server's value.",
    ),
    ("data_checksums", Verdict::Remark, "With them Postgres detects pages that the disk has damaged (pg_checksums)."),
    ("autovacuum", Verdict::Remark, "It removes the dead rows that views and old keys leave."),
];

/// A setting as the server shows it.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    /// Such as `128MB`.
    text: String,
    /// The value in `unit`, such as `16384` with `8kB`.
    number: Option<f64>,
    unit: Option<String>,
}

/// The settings of a server by name. Those that the user may not see are missing.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerSettings {
    shown: HashMap<String, Shown>,
    has_lz4: bool,
}

impl ServerSettings {
    /// Reads the settings. Those that a session or its role has changed are the session's.
    pub(super) async fn read(connection: &mut PgConnection) -> sqlx::Result<Self> {
        let rows: Vec<(String, String, String, Option<String>, bool)> = query_as(
            "SELECT name, current_setting(name), coalesce(setting, ''), unit,
                    coalesce(name = 'wal_compression' AND 'lz4' = ANY (enumvals), false)
             FROM pg_settings",
        )
        .fetch_all(connection)
        .await?;
        let has_lz4 = rows.iter().any(|row| row.4);
        let shown = rows.into_iter().map(|(name, text, setting, unit, _)| {
            let number = setting.parse().ok();
            (name, Shown { text, number, unit })
        });
        Ok(Self { shown: shown.collect(), has_lz4 })
    }

    /// The data directory; `None` if the user may not see it.
    pub(super) fn data_directory(&self) -> Option<&str> {
        self.shown.get("data_directory").map(|shown| shown.text.as_str())
    }

    /// The size to which the write-ahead log may grow, in bytes.
    pub(super) fn wal_bytes_max(&self) -> Option<u64> {
        self.shown.get("max_wal_size").and_then(Shown::base_units).map(|bytes| bytes as u64)
    }

    /// Compares the settings with those for this machine.
    pub(super) fn compare(&self, machine: &Machine) -> Vec<Finding> {
        let switches = SWITCHES.map(|(name, if_off, why)| self.switch(name, if_off, why));
        let recommended = tuning::recommended(machine, self.has_lz4).into_iter();
        switches.into_iter().chain(recommended.map(|setting| self.size(setting))).collect()
    }

    fn switch(&self, name: &'static str, if_off: Verdict, why: &str) -> Finding {
        let value = self.shown.get(name).map(|shown| shown.text.clone());
        let verdict = match value.as_deref() {
            None => Verdict::Unknown,
            Some("off") => if_off,
            Some(_) => Verdict::Good,
        };
        finding(name, value, "on".to_owned(), verdict, why)
    }

    fn size(&self, setting: Recommendation) -> Finding {
        let Recommendation { name, value, is_minimum, why } = setting;
        let shown = self.shown.get(name);
        let verdict = match shown {
            None => Verdict::Unknown,
            Some(shown) if shown.is_far_from(&setting) => Verdict::Remark,
            Some(_) => Verdict::Good,
        };
        let recommended = if is_minimum { format!("at least {value}") } else { value.to_string() };
        finding(name, shown.map(|shown| shown.text.clone()), recommended, verdict, why)
    }
}

impl Shown {
    /// The value in bytes or seconds, or the number without unit.
    fn base_units(&self) -> Option<f64> {
        let factor = match self.unit.as_deref() {
            None | Some("B" | "s") => 1.0,
            Some("kB") => 1024.0,
            Some("8kB") => 8.0 * 1024.0,
            Some("16kB") => 16.0 * 1024.0,
            Some("MB") => 1024.0 * 1024.0,
            Some("ms") => 0.001,
            Some("min") => 60.0,
            Some(_) => return None,
        };
        Some(self.number? * factor)
    }

    fn is_far_from(&self, recommended: &Recommendation) -> bool {
        let far = |wanted: u64| {
            let (wanted, factor) = (wanted as f64, FAR as f64);
            self.base_units()
                .is_none_or(|found| found * factor < wanted || (!recommended.is_minimum && found > wanted * factor))
        };
        match recommended.value {
            Value::Bytes(bytes) => far(bytes),
            Value::Seconds(seconds) => far(seconds),
            Value::Number(number) => self.base_units().is_none_or(|found| (found - number).abs() > FAR_NUMBER),
            Value::Word(word) => self.text != word,
        }
    }
}

fn finding(name: &'static str, value: Option<String>, recommended: String, verdict: Verdict, why: &str) -> Finding {
    let value = value.unwrap_or_else(|| "unknown".to_owned());
    Finding { name, value, recommended, verdict, why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(has_lz4: bool, rows: &[(&str, &str, &str, &str)]) -> ServerSettings {
        let shown = rows.iter().map(|(name, text, setting, unit)| {
            let unit = Some((*unit).to_owned()).filter(|unit| !unit.is_empty());
            ((*name).to_owned(), Shown { text: (*text).to_owned(), number: setting.parse().ok(), unit })
        });
        ServerSettings { shown: shown.collect(), has_lz4 }
    }

    fn verdict(settings: &ServerSettings, machine: Machine, name: &str) -> (Verdict, String) {
        let findings = settings.compare(&machine);
        let found = findings.iter().find(|finding| finding.name == name).expect("the setting is compared");
        (found.verdict, found.recommended.clone())
    }

    fn machine() -> Machine {
        Machine { memory: Some(4 << 30), disk: Some(1 << 40) }
    }

    #[test]
    fn settings_that_lose_commits_are_unsafe_and_others_a_remark() {
        let rows =
            ["fsync", "full_page_writes", "synchronous_commit", "data_checksums"].map(|name| (name, "off", "off", ""));
        let found = settings(true, &rows);
        for (name, wanted) in [
            ("fsync", Verdict::Unsafe),
            ("full_page_writes", Verdict::Unsafe),
            ("synchronous_commit", Verdict::Unsafe),
            ("data_checksums", Verdict::Remark),
            ("autovacuum", Verdict::Unknown),
        ] {
            assert_eq!(verdict(&found, machine(), name).0, wanted, "{name}");
        }
        let stricter = settings(true, &[("synchronous_commit", "remote_apply", "remote_apply", "")]);
        assert_eq!(verdict(&stricter, machine(), "synchronous_commit").0, Verdict::Good);
    }

    #[test]
    fn a_size_is_far_if_it_differs_by_more_than_a_factor_of_2() {
        for (text, pages, wanted) in [
            ("128MB", "16384", Verdict::Remark),
            ("512MB", "65536", Verdict::Good),
            ("2GB", "262144", Verdict::Good),
            ("3GB", "393216", Verdict::Remark),
        ] {
            let found = settings(true, &[("shared_buffers", text, pages, "8kB")]);
            assert_eq!(verdict(&found, machine(), "shared_buffers"), (wanted, "1GB".to_owned()), "{text}");
        }
    }

    #[test]
    fn a_large_size_is_good_on_a_machine_that_is_not_known() {
        for (pages, wanted) in [("8192", Verdict::Remark), ("4194304", Verdict::Good)] {
            let found = settings(true, &[("shared_buffers", "?", pages, "8kB")]);
            let (found, recommended) = verdict(&found, Machine::default(), "shared_buffers");
            assert_eq!((found, recommended.as_str()), (wanted, "at least 256MB"));
        }
    }

    #[test]
    fn durations_numbers_and_words_are_compared_with_their_units() {
        let defaults = settings(
            true,
            &[
                ("checkpoint_timeout", "5min", "300", "s"),
                ("checkpoint_completion_target", "0.5", "0.5", ""),
                ("wal_compression", "off", "off", ""),
                ("max_wal_size", "4GB", "4096", "MB"),
            ],
        );
        for name in ["checkpoint_timeout", "checkpoint_completion_target", "wal_compression", "max_wal_size"] {
            assert_eq!(verdict(&defaults, machine(), name).0, Verdict::Remark, "{name}");
        }
        assert_eq!(defaults.wal_bytes_max(), Some(4 << 30));
        let without_lz4 = settings(false, &[("wal_compression", "pglz", "pglz", "")]);
        assert_eq!(verdict(&without_lz4, machine(), "wal_compression").0, Verdict::Good);
    }
}
