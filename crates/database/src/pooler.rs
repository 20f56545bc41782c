//! Errors that a connection pooler such as PgBouncer causes. Its own messages do not say what to set.

use std::error::Error as StdError;

/// A setting of the pooler prevents the service from working.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "the connection pooler refuses the startup parameter {0}: set `ignore_startup_parameters = extra_float_digits,options` in \
         pgbouncer.ini, and set the session settings for the login role as docs/operations.md (\"PgBouncer\") describes"
    )]
    StartupParameter(String),
    #[error(
        "the connection pooler gives one server connection to several clients, and does not keep their prepared statements apart: \
         set `pool_mode = session` in pgbouncer.ini, or use PgBouncer 1.21 or later with `max_prepared_statements = 1000`"
    )]
    PreparedStatements,
}

impl Error {
    /// Finds such an error among the sources of `error`.
    pub(super) fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        let mut source = Some(error);
        while let Some(error) = source {
            if let Some(found) = Self::of_message(&error.to_string()) {
                return Some(found);
            }
            source = error.source();
        }
        None
    }

    fn of_message(message: &str) -> Option<Self> {
        if let Some((_, parameter)) = message.split_once("unsupported startup parameter") {
            let name = parameter.rsplit(": ").next().unwrap_or(parameter);
            return Some(Self::StartupParameter(name.trim().to_owned()));
        }
        let is_of_statement = |end: &str| message.contains("prepared statement") && message.contains(end);
        (is_of_statement("already exists") || is_of_statement("does not exist")).then_some(Self::PreparedStatements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_of_pgbouncer_becomes_a_sentence() {
        let refused = |name: &str| Some(Error::StartupParameter(name.to_owned()));
        for (message, expected) in [
            (
                "error returned from database: unsupported startup parameter: extra_float_digits",
                refused("extra_float_digits"),
            ),
            ("unsupported startup parameter: options", refused("options")),
            ("unsupported startup parameter in options: jit", refused("jit")),
            ("prepared statement \"sqlx_s_1\" already exists at line 412", Some(Error::PreparedStatements)),
            ("prepared statement \"sqlx_s_2\" does not exist", Some(Error::PreparedStatements)),
            ("relation \"log_head\" does not exist", None),
        ] {
            assert_eq!(Error::of_message(message), expected, "{message}");
        }
    }
}
