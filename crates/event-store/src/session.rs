//! Checks the session settings of a new connection. They are sent as startup options, which take precedence over the defaults of
//! the server, the database and the role. A connection pooler in between may ignore them.

use std::{error::Error, fmt, ops::Range};

use super::confirmation::confirm;
use sqlx::{
    PgConnection, Result,
    postgres::{PgConnectOptions, PgPoolOptions},
    query_as,
};

/// The settings that correctness depends on. Their values are written as Postgres shows them, such as `2s` or `1min`.
const CHECKED: [&str; 9] = [
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "role",
    "statement_timeout",
    "synchronous_commit",
    "timezone",
];

/// The settings that a login role needs if its connections go through a pooler that ignores startup options.
const OF_ROLE: [(&str, &str); 4] = [
    ("role", "passbook_service"),
    ("synchronous_commit", "on"),
    ("lock_timeout", "2s"),
    ("idle_in_transaction_session_timeout", "2s"),
];

/// Settings have other values than those that were requested.
#[derive(Debug)]
pub struct OtherSettings {
    user: String,
    settings: Vec<OtherSetting>,
}

/// A setting with another value than the requested one.
#[derive(Debug)]
struct OtherSetting {
    name: String,
    found: Option<String>,
    requested: String,
}

impl Error for OtherSettings {}

impl fmt::Display for OtherSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the session settings differ from those that Passbook requested: {}. A connection pooler ignores startup options. \
             Connect to Postgres directly, or run `{}` as a superuser and reconnect the pooler (docs/operations.md, \"PgBouncer\")",
            self.differences(),
            self.statements()
        )
    }
}

impl OtherSettings {
    fn differences(&self) -> String {
        let differences = self.settings.iter().map(|OtherSetting { name, found, requested }| {
            format!("{name} is {:?} instead of {requested:?}", found.as_deref().unwrap_or("unknown"))
        });
        differences.collect::<Vec<_>>().join(", ")
    }

    /// The statements that set the values for the login role: of all settings that any connection of the service needs.
    fn statements(&self) -> String {
        let differing = self.settings.iter().map(|setting| (setting.name.as_str(), setting.requested.as_str()));
        let mut needed: Vec<_> = OF_ROLE.into_iter().collect();
        needed.extend(differing.filter(|(name, _)| OF_ROLE.iter().all(|(known, _)| known != name)));
        let statements = needed.iter().map(|(name, value)| format!("ALTER ROLE {} SET {name} = '{value}';", self.user));
        statements.collect::<Vec<_>>().join(" ")
    }
}

/// Reads the settings back that `options` requests and that correctness depends on.
///
/// # Errors
/// [`sqlx::Error::Configuration`] with [`OtherSettings`], or a database error.
pub async fn check_session(connection: &mut PgConnection, options: &PgConnectOptions) -> Result<()> {
    let (names, values): (Vec<_>, Vec<_>) = requested(options.get_options().unwrap_or_default()).into_iter().unzip();
    let differing: Vec<(String, String, Option<String>, String)> = query_as(
        "SELECT session_user::text, name, found, value
         FROM unnest($1::text[], $2::text[]) AS requested(name, value)
         CROSS JOIN LATERAL (
             SELECT CASE name WHEN 'role' THEN current_user::text ELSE current_setting(name, true) END AS found
         ) AS setting
         WHERE found IS DISTINCT FROM value",
    )
    .bind(names)
    .bind(values)
    .persistent(false)
    .fetch_all(connection)
    .await?;
    let mut user = String::new();
    let mut settings = Vec::new();
    for (session_user, name, found, requested) in differing {
        if !is_sufficient(&name, &requested, found.as_deref()) {
            user = session_user;
            settings.push(OtherSetting { name, found, requested });
        }
    }
    match settings.is_empty() {
        true => Ok(()),
        false => Err(sqlx::Error::Configuration(Box::new(OtherSettings { user, settings }))),
    }
}

/// Whether a value that was not requested is as safe. A pooler gives all connections the settings of their role, although
/// projectors need no durable commits, and queries have a time limit.
fn is_sufficient(name: &str, requested: &str, found: Option<&str>) -> bool {
    match (name, requested) {
        ("synchronous_commit", "off") => true,
        ("synchronous_commit", "on") => found == Some("remote_apply"),
        ("statement_timeout", limit) => limit != "0" && found == Some("0"),
        (_, _) => false,
    }
}

/// Returns pool options that check each new connection as [`check_session`] does, and then confirm the rows of these partitions.
pub fn checked_pool_options(
    pool: PgPoolOptions,
    options: &PgConnectOptions,
    confirmed: Option<Range<i16>>,
) -> PgPoolOptions {
    let options = options.clone();
    pool.after_connect(move |connection, _| {
        let (options, confirmed) = (options.clone(), confirmed.clone());
        Box::pin(async move {
            check_session(connection, &options).await?;
            match confirmed {
                Some(partitions) => confirm(connection, partitions).await,
                None => Ok(()),
            }
        })
    })
}

/// Returns the checked settings in startup options such as `-c timezone=UTC`. The last value of a setting counts.
fn requested(options: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for word in words(options) {
        let Some((name, value)) = word.split_once('=').filter(|(name, _)| CHECKED.contains(name)) else { continue };
        found.retain(|(earlier, _)| earlier != name);
        found.push((name.to_owned(), value.to_owned()));
    }
    found
}

/// Splits startup options at spaces. A backslash escapes a space or a backslash.
fn words(options: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        let (text, is_end) = match character {
            ' ' => (None, true),
            '\\' => (characters.next(), false),
            other => (Some(other), false),
        };
        if is_end {
            words.push(String::new());
        } else if let Some(word) = words.last_mut() {
            word.extend(text);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weaker_settings_are_insufficient_and_stronger_ones_sufficient() {
        for (name, requested, found, expected) in [
            ("synchronous_commit", "on", "off", false),
            ("synchronous_commit", "on", "local", false),
            ("synchronous_commit", "on", "remote_apply", true),
            ("synchronous_commit", "off", "on", true),
            ("statement_timeout", "5s", "0", true),
            ("statement_timeout", "5s", "20ms", false),
            ("statement_timeout", "0", "5s", false),
            ("lock_timeout", "2s", "0", false),
            ("role", "passbook_service", "postgres", false),
        ] {
            assert_eq!(is_sufficient(name, requested, Some(found)), expected, "{name} {requested} {found}");
        }
    }

    #[test]
    fn the_error_names_the_differences_and_the_statements_for_the_role() {
        let setting = |name: &str, found: &str, requested: &str| OtherSetting {
            name: name.to_owned(),
            found: Some(found.to_owned()),
            requested: requested.to_owned(),
        };
        let settings = vec![setting("synchronous_commit", "off", "on"), setting("timezone", "Asia/Kathmandu", "UTC")];
        let error = OtherSettings { user: "bank".to_owned(), settings }.to_string();
        for part in [
            "synchronous_commit is \"off\" instead of \"on\", timezone is \"Asia/Kathmandu\" instead of \"UTC\".",
            "ALTER ROLE bank SET role = 'passbook_service';",
            "ALTER ROLE bank SET timezone = 'UTC';",
        ] {
            assert!(error.contains(part), "{part} is missing: {error}");
        }
    }

    #[test]
    fn the_last_value_of_each_checked_setting_is_requested() {
        let options = PgConnectOptions::new_without_pgpass()
            .options([("lock_timeout", "1s"), ("jit", "off"), ("default_transaction_isolation", "read committed")])
            .options([("lock_timeout", "2s")]);
        let expected = [("default_transaction_isolation", "read committed"), ("lock_timeout", "2s")];
        let expected: Vec<_> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        assert_eq!(requested(options.get_options().unwrap_or_default()), expected);
    }
}
