//! What the binary can do, and what each command is asked for besides the settings.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use secrecy::SecretString;

use super::Config;

/// An event-sourced bank in one binary: HTTP commands in, immutable events in Postgres, balances out.
#[derive(Clone, Debug, Parser)]
#[command(version, about, long_about = None)]
#[command(after_help = "Without a command it serves. `passbook serve --help` tells every setting.")]
pub struct Cli {
    /// What to do; nothing said is `serve`.
    #[command(subcommand)]
    command: Option<Subcommands>,
}

impl Cli {
    /// What the command line asks for.
    pub fn subcommand() -> Subcommands {
        match Self::parse().command {
            Some(subcommand) => subcommand,
            // Parsed again, so that the settings come from the environment all the same.
            None => Subcommands::Serve(Serving::parse_from(["passbook"]).config),
        }
    }
}

/// `serve` without the word.
#[derive(Parser)]
struct Serving {
    #[command(flatten)]
    config: Config,
}

/// What the binary can do.
#[derive(Clone, Debug, Subcommand)]
pub enum Subcommands {
    /// Serve the bank over HTTP.
    ///
    /// Without PASSBOOK_DATABASE_URL it starts a Postgres of its own and keeps its data in PASSBOOK_DATA_DIR, so this
    /// one command is a whole bank. It brings the database's schema up to date, prints `listening on http://…` once
    /// it is ready, and ends at Ctrl-C or SIGTERM after what it has accepted is answered.
    ///
    /// Try it:
    ///   curl http://127.0.0.1:8080/v1/accounts -H 'content-type: application/json' -d '{"currency": "EUR"}'
    #[command(verbatim_doc_comment)]
    Serve(Config),
    /// Bring the database's schema up to date, and end.
    ///
    /// `serve` does this by itself. Use it where the schema is to change before the first new instance starts, and to spread
    /// a new log over the nodes of a Citus cluster.
    Migrate(Migrate),
    /// Check the books: the whole log, and everything that is derived from it.
    ///
    /// Reads the log once, in one snapshot, while the bank goes on: positions without holes, versions without gaps, times
    /// that never go back, every hash recomputed, every snapshot, every receipt and every row of the views compared with
    /// the fold, and the sum of all balances with what was paid in and out. Exit code 1 and the first broken position if
    /// anything is not in order.
    ///
    /// A superuser can rewrite the whole log with fitting hashes. Somebody who wrote down position and hash before
    /// (`GET /v1/log/head`) finds that out with --witness.
    Verify(Verify),
    /// Rebuild a view from the log, beside the live one.
    ///
    /// The view's next generation is built while the bank goes on, checked, and takes over in one short transaction; it
    /// works just as well while no service runs. Ctrl-C stops it half-way: --resume goes on, and so does the next `serve`.
    Rebuild(Rebuild),
    /// Copy the log into a new one with more partitions, while the bank goes on.
    ///
    /// Everything but positions and hashes stays what it was: events, keys, what was answered. The new log needs a database of
    /// its own and a multiple of the old one's partitions. With --follow it copies on until Ctrl-C; stop the service then, and
    /// run it without: it copies the rest, makes sure that nothing is missing, and the new log can be served. What was
    /// interrupted goes on where it stopped.
    ///
    /// Try it:
    ///   passbook copy --to postgres://user:password@host/new --partitions 16 --follow
    #[command(verbatim_doc_comment)]
    Copy(Copy),
    /// Make an access token, for trying out access control without a provider.
    ///
    /// Signed with a key of this machine's own, which is made on first use: `development.key` in the data folder, or the file
    /// that --key names. Its public half is written beside it (`development.jwks.json`). The token goes to standard output.
    ///
    /// Try it:
    ///   TOKEN=$(passbook token --sub alice --scope "accounts:read accounts:write")
    ///   PASSBOOK_AUTH_JWKS_FILE=<the file that it names> passbook serve
    ///   curl http://127.0.0.1:8080/v1/accounts -H "authorization: Bearer $TOKEN"
    #[command(verbatim_doc_comment)]
    Token(Token),
    /// Publish the log to other services.
    #[command(subcommand)]
    Relay(Relay),
    /// Print the OpenAPI document, the contract that clients are generated from.
    ///
    /// It needs no database: `passbook openapi > openapi.json`.
    Openapi,
}

/// What is brought up to date.
#[derive(Args, Clone, Debug)]
pub struct Migrate {
    /// Distribute the tables over the nodes of a Citus cluster, by partition; only of a log without an event.
    #[arg(long)]
    pub distribute: bool,

    /// Where the log is.
    #[command(flatten)]
    pub config: Config,
}

/// What is checked, and how it is told.
#[derive(Args, Clone, Debug)]
pub struct Verify {
    /// What somebody wrote down of the log earlier: `<position>-<hash>`, at least the hash's first 8 digits.
    #[arg(long)]
    pub witness: Option<String>,

    /// Tell it as one JSON object on standard output.
    #[arg(long)]
    pub json: bool,

    /// Where the log is.
    #[command(flatten)]
    pub config: Config,
}

/// Where the log is published.
#[derive(Clone, Debug, Subcommand)]
pub enum Relay {
    /// Publish every event, in order, as a CloudEvents message to NATS JetStream.
    ///
    /// Events of partition 0 go to the stream passbook-0 under the subjects passbook.0.<type>, the event at position n as its
    /// message n, and so on with further partitions. A stream is made on the first start. The relay may be killed at any time, and goes on where the stream
    /// ends; what is away is waited for. It ends with exit code 1 and a sentence when somebody has to decide something: the
    /// stream is gone, cut off or full. Run one beside the service; a second one does no harm.
    Nats(Box<RelayNats>),
}

/// What NATS server, and what stream.
#[derive(Args, Clone, Debug)]
pub struct RelayNats {
    /// The NATS server to publish to, several of a cluster with commas between (`tls://user:password@host:4222`, `nats://token@host`).
    #[arg(long, env = "PASSBOOK_RELAY_NATS_URL", hide_env_values = true, default_value = "nats://127.0.0.1:4222")]
    pub relay_nats_url: SecretString,

    /// A file with credentials for it, as `nsc` writes them.
    #[arg(long, env = "PASSBOOK_RELAY_NATS_CREDENTIALS_FILE")]
    pub relay_nats_credentials_file: Option<PathBuf>,

    /// What the stream's name begins with; a dash and the partition follow.
    #[arg(long, env = "PASSBOOK_RELAY_STREAM", default_value = "passbook")]
    pub relay_stream: String,

    /// The address on which the relay shows its figures (`GET /metrics`); none: nowhere.
    #[arg(long, env = "PASSBOOK_RELAY_LISTEN")]
    pub relay_listen: Option<SocketAddr>,

    /// Make a stream anew that is gone, and publish again what one that was cut off no longer holds.
    #[arg(long)]
    pub refill: bool,

    /// Where the log is.
    #[command(flatten)]
    pub config: Config,
}

/// What is rebuilt, and how.
#[derive(Args, Clone, Debug)]
pub struct Rebuild {
    /// The view, as `GET /v1/projections` names it.
    pub projection: String,

    /// Compare every row with the log before it goes live, in place of a sample of accounts.
    #[arg(long)]
    pub verify: bool,

    /// Go on with one that was begun.
    #[arg(long)]
    pub resume: bool,

    /// Where the log is.
    #[command(flatten)]
    pub config: Config,
}

/// Where to, and for how long.
#[derive(Args, Clone, Debug)]
pub struct Copy {
    /// The Postgres of the new log (`postgres://user:password@host/database`).
    #[arg(long, env = "PASSBOOK_COPY_TO", hide_env_values = true)]
    pub to: SecretString,

    /// Copy on while the old log grows, until Ctrl-C.
    #[arg(long)]
    pub follow: bool,

    /// Where the old log is; --partitions is how many the new one gets.
    #[command(flatten)]
    pub config: Config,
}

/// What the token says, and who signs it.
#[derive(Args, Clone, Debug)]
pub struct Token {
    /// Who it is for: the owner of the accounts that are opened with it.
    #[arg(long)]
    pub sub: String,

    /// What it is good for: scopes with spaces between.
    #[arg(long, default_value = "accounts:read accounts:write")]
    pub scope: String,

    /// For how many seconds.
    #[arg(long, default_value = "3600")]
    pub lasts_s: NonZeroU32,

    /// The file of the private key; none: `development.key` in the data folder.
    #[arg(long)]
    pub key: Option<PathBuf>,

    /// Where the data folder is, and what issuer and audience the service asks for.
    #[command(flatten)]
    pub config: Config,
}
