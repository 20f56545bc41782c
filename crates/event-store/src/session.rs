//! Checks the session settings of a new connection. They are sent as startup options, which take precedence over the defaults of
//! the server, the database and the role. A connection pooler in between may ignore them.

use std::ops::Range;

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

/// A setting has another value than the one that was requested.
#[derive(Debug, thiserror::Error)]
#[error(
    "the session setting {name} is {found:?} instead of {requested:?}: connect without a pooler that ignores startup options"
)]
pub struct OtherSetting {
    name: String,
    found: Option<String>,
    requested: String,
}

/// Reads the settings back that `options` requests and that correctness depends on.
///
/// # Errors
/// [`sqlx::Error::Configuration`] with an [`OtherSetting`], or a database error.
pub async fn check_session(connection: &mut PgConnection, options: &PgConnectOptions) -> Result<()> {
    let (names, values): (Vec<_>, Vec<_>) = requested(options.get_options().unwrap_or_default()).into_iter().unzip();
    let other: Option<(String, Option<String>, String)> = query_as(
        "SELECT name, current_setting(name, true), value
         FROM unnest($1::text[], $2::text[]) AS requested(name, value)
         WHERE current_setting(name, true) IS DISTINCT FROM value
         LIMIT 1",
    )
    .bind(names)
    .bind(values)
    .persistent(false)
    .fetch_optional(connection)
    .await?;
    match other {
        None => Ok(()),
        Some((name, found, requested)) => {
            Err(sqlx::Error::Configuration(Box::new(OtherSetting { name, found, requested })))
        }
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
    fn the_last_value_of_each_checked_setting_is_requested() {
        let options = PgConnectOptions::new_without_pgpass()
            .options([("lock_timeout", "1s"), ("jit", "off"), ("default_transaction_isolation", "read committed")])
            .options([("lock_timeout", "2s")]);
        let expected = [("default_transaction_isolation", "read committed"), ("lock_timeout", "2s")];
        let expected: Vec<_> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        assert_eq!(requested(options.get_options().unwrap_or_default()), expected);
    }
}
