//! Settings that several subcommands share.

use std::{num::NonZeroU32, path::PathBuf};

use clap::{Args, ValueEnum};
use passbook_event_store::Partitions;
use secrecy::SecretString;

/// The data folder.
#[derive(Args, Clone, Debug)]
pub struct DataDirArgs {
    /// Data folder of the embedded Postgres. Default: `/var/lib/passbook` for root, `~/.local/share/passbook` for other users.
    #[arg(long, env = "PASSBOOK_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

/// The database.
#[derive(Args, Clone, Debug)]
pub struct DatabaseArgs {
    /// The database (`postgres://user:password@host/database`); of several URLs separated by commas, the primary is used. Default: an embedded Postgres.
    #[arg(long, env = "PASSBOOK_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<SecretString>,

    /// A file that holds the database URL, in place of PASSBOOK_DATABASE_URL.
    #[arg(long, env = "PASSBOOK_DATABASE_URL_FILE")]
    pub database_url_file: Option<PathBuf>,

    /// The data folder of the embedded Postgres.
    #[command(flatten)]
    pub folder: DataDirArgs,

    /// The folder with the programs `postgres` and `initdb`. Default: the usual places are searched.
    #[arg(long, env = "PASSBOOK_PG_BIN")]
    pub pg_bin: Option<PathBuf>,
}

impl DatabaseArgs {
    /// The settings of a database without a replica.
    pub fn settings(&self) -> passbook_database::Settings {
        passbook_database::Settings {
            url: self.database_url.clone(),
            url_file: self.database_url_file.clone(),
            read_url: None,
            data_dir: self.folder.data_dir.clone(),
            pg_bin: self.pg_bin.clone(),
        }
    }
}

/// The key file.
#[derive(Args, Clone, Debug)]
pub struct KeyArgs {
    /// The file of the keys that seal stored secrets: keys of 32 bytes in base64, one a line, the current one first. Default: a file in the data folder of the embedded Postgres, else none.
    #[arg(long, env = "PASSBOOK_KEY_FILE")]
    pub key_file: Option<PathBuf>,
}

/// The partitions of a new log.
#[derive(Args, Clone, Copy, Debug)]
pub struct PartitionArgs {
    /// The number of partitions of a new log, 1 to 64; it cannot be changed later. Default: the number of the existing log, else 1.
    #[arg(long, env = "PASSBOOK_PARTITIONS", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub partitions: Option<u8>,
}

impl PartitionArgs {
    /// The partitions; `None` if their number is not set.
    pub fn get(self) -> Option<Partitions> {
        self.partitions.and_then(|count| Partitions::new(count.into()))
    }
}

/// The clock.
#[derive(Args, Clone, Copy, Debug)]
pub struct ClockArgs {
    /// How far the clock of this instance may differ from the database's, in milliseconds; beyond that commands are refused.
    #[arg(long, env = "PASSBOOK_CLOCK_SKEW_MS_MAX", default_value = "5000")]
    pub clock_skew_ms_max: NonZeroU32,
}

/// The log lines.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// The log level, or a filter such as `info,sqlx=debug`.
    #[arg(long, env = "PASSBOOK_LOG", default_value = "info")]
    pub log: String,

    /// The format of log lines. Default: text on a terminal, JSON elsewhere.
    #[arg(long, env = "PASSBOOK_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
}

impl LogArgs {
    /// The settings of the log.
    pub fn settings(&self) -> passbook_telemetry::LogSettings {
        let is_json = self.log_format.map(|format| format == LogFormat::Json);
        passbook_telemetry::LogSettings { filter: self.log.clone(), is_json }
    }
}

/// The OpenID Connect provider.
#[derive(Args, Clone, Debug)]
pub struct ProviderArgs {
    /// The issuer of accepted tokens, exactly as the OpenID Connect provider names itself: `https://id.example`.
    #[arg(long, env = "PASSBOOK_AUTH_ISSUER")]
    pub auth_issuer: Option<String>,

    /// The audience of accepted tokens. Required with an issuer, because its tokens for other services would be accepted otherwise.
    #[arg(long, env = "PASSBOOK_AUTH_AUDIENCE")]
    pub auth_audience: Option<String>,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines of text, for people.
    Text,
    /// One JSON object a line, for programs.
    Json,
}

fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "neither true nor false".to_owned())
}

/// The webhooks.
#[derive(Args, Clone, Debug)]
pub struct WebhookArgs {
    /// Send events also to `http` URLs and to private, loopback and link-local addresses. For tests and closed networks.
    #[arg(long, env = "PASSBOOK_WEBHOOKS_ALLOW_PRIVATE", default_value = "false", num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = boolean)]
    pub webhooks_allow_private: bool,

    /// The durations of deliveries, which only tests shorten.
    #[arg(skip = passbook_webhooks::Timing::of_process())]
    pub timing: passbook_webhooks::Timing,
}
