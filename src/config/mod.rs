//! The settings. Each one is an environment variable and, in lower case without the prefix, a flag: `PASSBOOK_LISTEN` is
//! `--listen`.

mod command_line;
mod commands;
mod groups;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use secrecy::SecretString;

pub use command_line::{parse, unknown_variables};
pub use commands::{
    Cli, Completions, Copy, Doctor, Export, ExportJournal, Import, Migrate, Rebuild, Relay, RelayNats, RotateLogKey,
    Subcommands, Token, Verify,
};
pub use groups::{
    ClockArgs, DataDirArgs, DatabaseArgs, KeyArgs, LogArgs, LogFormat, PartitionArgs, ProviderArgs, WebhookArgs,
};

/// The settings of the service.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// The address to listen on.
    #[arg(long, env = "PASSBOOK_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// A streaming replica that answers queries while it is reachable and current. Default: the primary answers them.
    #[arg(long, env = "PASSBOOK_READ_DATABASE_URL", hide_env_values = true)]
    pub read_database_url: Option<SecretString>,

    /// The key file.
    #[command(flatten)]
    pub keys: KeyArgs,

    /// The partitions of a new log.
    #[command(flatten)]
    pub partitions: PartitionArgs,

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

    /// The clock.
    #[command(flatten)]
    pub clock: ClockArgs,

    /// The webhooks.
    #[command(flatten)]
    pub webhooks: WebhookArgs,

    /// How long the service keeps serving after SIGTERM while `GET /readyz` answers 503, so that load balancers notice, in milliseconds.
    #[arg(long, env = "PASSBOOK_SHUTDOWN_DELAY_MS", default_value = "0")]
    pub shutdown_delay_ms: u32,

    /// How long a connection may wait for its next request, in milliseconds; must be longer than the keep-alive time of a proxy in front.
    #[arg(long, env = "PASSBOOK_IDLE_TIMEOUT_MS", default_value = "75000")]
    pub idle_timeout_ms: NonZeroU32,

    /// The log lines.
    #[command(flatten)]
    pub log: LogArgs,

    /// Set to `off` to run without authentication on a non-loopback address.
    #[arg(long, env = "PASSBOOK_AUTH")]
    pub auth: Option<Auth>,

    /// The OpenID Connect provider.
    #[command(flatten)]
    pub provider: ProviderArgs,

    /// The client id of the console at the issuer. With it users sign in to the console; without it they paste a token.
    #[arg(long, env = "PASSBOOK_AUTH_CLIENT_ID")]
    pub auth_client_id: Option<String>,

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
    /// The settings of the database, with those of its replica.
    pub fn database(&self) -> passbook_database::Settings {
        passbook_database::Settings { read_url: self.read_database_url.clone(), ..self.database.settings() }
    }
}

/// Parses a network or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| "neither an address nor a network such as 10.0.0.0/8".to_owned())
}

/// The explicit choice to run without authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// Every client that reaches the address has every permission.
    Off,
}
