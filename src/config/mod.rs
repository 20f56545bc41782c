//! The settings. Each one is an environment variable and, in lower case without the prefix, a flag: `PASSBOOK_LISTEN` is
//! `--listen`.

mod commands;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use secrecy::SecretString;

pub use commands::{Cli, Copy, Doctor, Import, Migrate, Rebuild, Relay, RelayNats, Subcommands, Token, Verify};

/// The settings of the service.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// The address to listen on.
    #[arg(long, env = "PASSBOOK_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// The database (`postgres://user:password@host/database`); of several URLs separated by commas, the primary is used. Default: an embedded Postgres.
    #[arg(long, env = "PASSBOOK_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<SecretString>,

    /// A file that holds the database URL, in place of PASSBOOK_DATABASE_URL.
    #[arg(long, env = "PASSBOOK_DATABASE_URL_FILE")]
    pub database_url_file: Option<PathBuf>,

    /// A streaming replica that answers queries while it is reachable and current. Default: the primary answers them.
    #[arg(long, env = "PASSBOOK_READ_DATABASE_URL", hide_env_values = true)]
    pub read_database_url: Option<SecretString>,

    /// Data folder of the embedded Postgres. Default: `/var/lib/passbook` for root, `~/.local/share/passbook` for other users.
    #[arg(long, env = "PASSBOOK_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// The folder with the programs `postgres` and `initdb`. Default: the usual places are searched.
    #[arg(long, env = "PASSBOOK_PG_BIN")]
    pub pg_bin: Option<PathBuf>,

    /// The number of partitions of a new log, 1 to 64; it cannot be changed later. Default: the number of the existing log, else 1.
    #[arg(long, env = "PASSBOOK_PARTITIONS", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub partitions: Option<u8>,

    /// A snapshot of an account is written after this number of events.
    #[arg(long, env = "PASSBOOK_SNAPSHOT_EVERY", default_value = "100")]
    pub snapshot_every: NonZeroU32,

    /// The number of accounts in the cache of the write side (about 400 bytes each).
    #[arg(long, env = "PASSBOOK_CACHE_ACCOUNTS", default_value = "100000")]
    pub cache_accounts: NonZeroU32,

    /// How long a client waits for the result of a command, in milliseconds.
    #[arg(long, env = "PASSBOOK_COMMAND_TIMEOUT_MS", default_value = "10000")]
    pub command_timeout_ms: NonZeroU32,

    /// How many days an idempotency key is kept, at most 36500; 0: for ever.
    #[arg(long, env = "PASSBOOK_IDEMPOTENCY_RETENTION_DAYS", default_value = "90", value_parser = clap::value_parser!(u16).range(0..=36_500))]
    pub idempotency_retention_days: u16,

    /// How far the clock of this instance may differ from the database's, in milliseconds; beyond that commands are refused.
    #[arg(long, env = "PASSBOOK_CLOCK_SKEW_MS_MAX", default_value = "5000")]
    pub clock_skew_ms_max: NonZeroU32,

    /// How long the service keeps serving after SIGTERM while `GET /readyz` answers 503, so that load balancers notice, in milliseconds.
    #[arg(long, env = "PASSBOOK_SHUTDOWN_DELAY_MS", default_value = "0")]
    pub shutdown_delay_ms: u32,

    /// How long a connection may wait for its next request, in milliseconds; must be longer than the keep-alive time of a proxy in front.
    #[arg(long, env = "PASSBOOK_IDLE_TIMEOUT_MS", default_value = "75000")]
    pub idle_timeout_ms: NonZeroU32,

    /// The log level, or a filter such as `info,sqlx=debug`.
    #[arg(long, env = "PASSBOOK_LOG", default_value = "info")]
    pub log: String,

    /// The format of log lines. Default: text on a terminal, JSON elsewhere.
    #[arg(long, env = "PASSBOOK_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Set to `off` to run without authentication on a non-loopback address.
    #[arg(long, env = "PASSBOOK_AUTH")]
    pub auth: Option<Auth>,

    /// The issuer of accepted tokens, exactly as the OpenID Connect provider names itself: `https://id.example`.
    #[arg(long, env = "PASSBOOK_AUTH_ISSUER")]
    pub auth_issuer: Option<String>,

    /// The audience of accepted tokens. Required with an issuer, because its tokens for other services would be accepted otherwise.
    #[arg(long, env = "PASSBOOK_AUTH_AUDIENCE")]
    pub auth_audience: Option<String>,

    /// A JWKS file with the keys of accepted tokens, in place of the keys that the issuer publishes.
    #[arg(long, env = "PASSBOOK_AUTH_JWKS_FILE")]
    pub auth_jwks_file: Option<PathBuf>,

    /// The sustained number of requests a second for each caller; 0: no limit. Default: no limit on a loopback address, 1000 elsewhere.
    #[arg(long, env = "PASSBOOK_RATE_LIMIT_PER_SECOND")]
    pub rate_limit_per_second: Option<u32>,

    /// The number of requests that a caller may send at once. Default: the number of one second.
    #[arg(long, env = "PASSBOOK_RATE_LIMIT_BURST")]
    pub rate_limit_burst: Option<NonZeroU32>,

    /// The proxies whose `X-Forwarded-For` is trusted, as addresses or networks (`10.0.0.0/8,127.0.0.1`). Default: none.
    #[arg(long, env = "PASSBOOK_TRUSTED_PROXIES", value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,
}

impl Config {
    /// The settings of the database.
    pub fn database(&self) -> passbook_database::Settings {
        passbook_database::Settings {
            url: self.database_url.clone(),
            url_file: self.database_url_file.clone(),
            read_url: self.read_database_url.clone(),
            data_dir: self.data_dir.clone(),
            pg_bin: self.pg_bin.clone(),
        }
    }

    /// The settings of the log.
    pub fn log(&self) -> passbook_telemetry::LogSettings {
        let is_json = self.log_format.map(|format| format == LogFormat::Json);
        passbook_telemetry::LogSettings { filter: self.log.clone(), is_json }
    }
}

/// Parses a network or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| "neither an address nor a network such as 10.0.0.0/8".to_owned())
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines of text, for people.
    Text,
    /// One JSON object a line, for programs.
    Json,
}

/// The explicit choice to run without authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// Every client that reaches the address has every permission.
    Off,
}
