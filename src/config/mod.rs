//! Every setting, with its default and one line why. Each is an environment variable and, in lower case without the
//! prefix, a flag: `PASSBOOK_LISTEN` is `--listen`.

mod commands;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use secrecy::SecretString;

pub use commands::{Cli, Copy, Migrate, Rebuild, Relay, RelayNats, Subcommands, Token, Verify};

/// Every setting.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// The address to listen on.
    #[arg(long, env = "PASSBOOK_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// The Postgres to use (`postgres://user:password@host/database`; of several with commas between, the one that takes writes); none: one of our own.
    #[arg(long, env = "PASSBOOK_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<SecretString>,

    /// A file that holds the URL of the Postgres to use, in place of the environment.
    #[arg(long, env = "PASSBOOK_DATABASE_URL_FILE")]
    pub database_url_file: Option<PathBuf>,

    /// A streaming replica that queries are asked at while it is there and near; none: the primary answers them.
    #[arg(long, env = "PASSBOOK_READ_DATABASE_URL", hide_env_values = true)]
    pub read_database_url: Option<SecretString>,

    /// Where our own Postgres keeps its data; none: `/var/lib/passbook` for root, `~/.local/share/passbook` for others.
    #[arg(long, env = "PASSBOOK_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// The folder that holds `postgres` and `initdb`; none: it is searched for.
    #[arg(long, env = "PASSBOOK_PG_BIN")]
    pub pg_bin: Option<PathBuf>,

    /// Into how many partitions a new log is divided, 1 to 64, for ever; none: as it was created, a new one undivided.
    #[arg(long, env = "PASSBOOK_PARTITIONS", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub partitions: Option<u8>,

    /// A snapshot of an account is written each time it passes so many events.
    #[arg(long, env = "PASSBOOK_SNAPSHOT_EVERY", default_value = "100")]
    pub snapshot_every: NonZeroU32,

    /// How many accounts are held in memory for decisions (about 400 bytes each).
    #[arg(long, env = "PASSBOOK_CACHE_ACCOUNTS", default_value = "100000")]
    pub cache_accounts: NonZeroU32,

    /// How long a command waits for its answer, in milliseconds.
    #[arg(long, env = "PASSBOOK_COMMAND_TIMEOUT_MS", default_value = "10000")]
    pub command_timeout_ms: NonZeroU32,

    /// How long it serves on when it is told to end while `GET /readyz` says so, for a load balancer to notice, in milliseconds.
    #[arg(long, env = "PASSBOOK_SHUTDOWN_DELAY_MS", default_value = "0")]
    pub shutdown_delay_ms: u32,

    /// What is logged: a level, or a filter such as `info,sqlx=debug`.
    #[arg(long, env = "PASSBOOK_LOG", default_value = "info")]
    pub log: String,

    /// How it is logged; none: text on a terminal, JSON elsewhere.
    #[arg(long, env = "PASSBOOK_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,

    /// `off` is needed to listen on any address but a loopback one, where nobody else can reach an open bank.
    #[arg(long, env = "PASSBOOK_AUTH")]
    pub auth: Option<Auth>,

    /// The OpenID Connect provider whose tokens are taken, named as it names itself: `https://id.example`.
    #[arg(long, env = "PASSBOOK_AUTH_ISSUER")]
    pub auth_issuer: Option<String>,

    /// For whom tokens must be issued; the issuer needs it, as otherwise tokens for other services would be taken.
    #[arg(long, env = "PASSBOOK_AUTH_AUDIENCE")]
    pub auth_audience: Option<String>,

    /// A JWKS file with the keys that sign tokens, in place of those that the issuer publishes.
    #[arg(long, env = "PASSBOOK_AUTH_JWKS_FILE")]
    pub auth_jwks_file: Option<PathBuf>,

    /// How many requests a second one caller may send in the long run; 0: as many as they like; none: that on a loopback address, 1000 elsewhere.
    #[arg(long, env = "PASSBOOK_RATE_LIMIT_PER_SECOND")]
    pub rate_limit_per_second: Option<u32>,

    /// How many of them may come at once; none: those of one second.
    #[arg(long, env = "PASSBOOK_RATE_LIMIT_BURST")]
    pub rate_limit_burst: Option<NonZeroU32>,

    /// The proxies whose `X-Forwarded-For` is believed, as addresses or networks (`10.0.0.0/8,127.0.0.1`); none: nobody's.
    #[arg(long, env = "PASSBOOK_TRUSTED_PROXIES", value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,
}

impl Config {
    /// Which database to use.
    pub fn database(&self) -> passbook_database::Settings {
        passbook_database::Settings {
            url: self.database_url.clone(),
            url_file: self.database_url_file.clone(),
            read_url: self.read_database_url.clone(),
            data_dir: self.data_dir.clone(),
            pg_bin: self.pg_bin.clone(),
        }
    }

    /// What is logged, and how.
    pub fn log(&self) -> passbook_telemetry::LogSettings {
        let is_json = self.log_format.map(|format| format == LogFormat::Json);
        passbook_telemetry::LogSettings { filter: self.log.clone(), is_json }
    }
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| "neither an address nor a network such as 10.0.0.0/8".to_owned())
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Whether access is controlled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// Everybody who reaches the address may do everything.
    Off,
}
