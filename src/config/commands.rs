//! The subcommands of the binary and their own options.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf};

use chrono::NaiveDate;
use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::Shell;
use passbook_checkpoint::VerifierKey;
use secrecy::SecretString;

use super::{ClockArgs, Config, DataDirArgs, DatabaseArgs, KeyArgs, LogArgs, PartitionArgs, ProviderArgs};
use crate::{http::calendar_date, journal::JournalFormat};

const TRY_SERVE: &str = "\
Try it:
  curl http://127.0.0.1:8080/v1/accounts \\
    -H 'Content-Type: application/json' -d '{\"currency\": \"EUR\"}'";
const TRY_COPY: &str = "\
Try it:
  passbook copy --to postgres://user:password@host/new --partitions 16 --follow";
const TRY_TOKEN: &str = "\
Try it:
  TOKEN=$(passbook token --sub alice --scope \"accounts:read accounts:write\")
  PASSBOOK_AUTH_JWKS_FILE=<the printed file> passbook serve
  curl http://127.0.0.1:8080/v1/accounts -H \"authorization: Bearer $TOKEN\"";
const TRY_EXPORT: &str = "\
Try it:
  passbook export journal --format hledger --output books.journal
  hledger --file books.journal balance";
const TRY_IMPORT: &str = "\
Try it:
  printf '%s\\n' '{\"command\": \"open\", \"currency\": \"EUR\"}' > commands.ndjson
  passbook import commands.ndjson
  generate | passbook import - --key-prefix payroll-2026-11";

/// An event-sourced bank in one binary: HTTP commands in, immutable events in Postgres, balances out.
#[derive(Clone, Debug, Parser)]
#[command(version = env!("PASSBOOK_VERSION"), about, long_about = None)]
#[command(after_help = "Without a subcommand, `serve` runs. `passbook serve --help` lists every setting.")]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Subcommands,
}

/// The subcommands of the binary.
#[derive(Clone, Debug, Subcommand)]
pub enum Subcommands {
    /// Serve the bank over HTTP.
    ///
    /// Without PASSBOOK_DATABASE_URL the command starts an embedded Postgres with its data in PASSBOOK_DATA_DIR, so nothing else
    /// needs to run. It migrates the database and prints `listening on http://…` once it is ready. It stops on Ctrl-C or SIGTERM,
    /// after it has answered the accepted requests.
    #[command(after_long_help = TRY_SERVE)]
    Serve(Config),
    /// Migrate the database, then exit.
    ///
    /// `serve` migrates by itself. Use this command to migrate before the first instance of a new release starts, or to
    /// distribute a new log over the nodes of a Citus cluster.
    Migrate(Migrate),
    /// Verify the whole log and everything that is derived from it.
    ///
    /// Reads the log once, in one database snapshot, while the service runs. Checks that positions and versions have no gaps
    /// and that times never decrease. Recomputes every hash. Compares every snapshot, receipt and view row with the folded
    /// events, and the sum of all balances with all deposits and withdrawals. On the first mismatch it prints the position and
    /// exits with code 1.
    ///
    /// A database superuser can rewrite the whole log with matching hashes. To detect that, keep checkpoints (`GET
    /// /v1/log/checkpoint`) outside the database and pass them later with --checkpoint, together with the key of the log.
    Verify(Verify),
    /// Check the database, its server and its settings.
    ///
    /// Prints a table: what was found, what Passbook recommends for the server's machine, and why. Checks the version of Postgres,
    /// the schema, the rights, the clock, the free disk, and the settings for durability, memory and the write-ahead log. Changes
    /// nothing, and may run beside the service.
    ///
    /// The exit code is 1 if a setting is unsafe: a crash could lose or damage data (fsync, full_page_writes, synchronous_commit).
    /// Everything else is a remark, and the exit code is 0.
    Doctor(Doctor),
    /// Rebuild a view from the log, beside the live one.
    ///
    /// Builds the next generation of the view while the service runs, checks it, and makes it live in one short transaction.
    /// Works without a running service, too. After Ctrl-C, --resume or the next `serve` continues the rebuild.
    Rebuild(Rebuild),
    /// Copy the log into a new one with more partitions, while the service runs.
    ///
    /// Events, idempotency keys and receipts stay the same, except for their positions and hashes. The new log needs a database of
    /// its own, and a multiple of the old log's partitions. With --follow the command copies new events until Ctrl-C. Then stop the
    /// service and run the command without --follow: it copies the rest and verifies that nothing is missing. An interrupted copy
    /// continues where it stopped.
    #[command(after_long_help = TRY_COPY)]
    Copy(Copy),
    /// Sign a development token, to try access control without a provider.
    ///
    /// The private key is created on first use: `development.key` in the data folder, or the file that --key names. The public key
    /// is written beside it (`development.jwks.json`). The token is printed to standard output.
    #[command(after_long_help = TRY_TOKEN)]
    Token(Token),
    /// Send a file of commands to a running service, each exactly once.
    ///
    /// The file has one command a line (NDJSON), as `POST /v1/batches` accepts them; it can be compressed with gzip. Each command is
    /// executed by itself, in the order of the file.
    ///
    /// After an interruption, run the same command again: commands that are done are not executed twice. Each line has an
    /// idempotency key for this, its own (`idempotency_key`) or one that is derived from the file's name, the line's number and the
    /// line's text. So correct a refused line in its place, add lines at the end, and never insert, remove or move lines.
    ///
    /// Prints a summary. The exit code is 0 if all commands succeeded, 1 if some were refused, and 2 if the import ended before the
    /// last line.
    #[command(after_long_help = TRY_IMPORT)]
    Import(Import),
    /// Write the books for other programs.
    #[command(subcommand)]
    Export(Export),
    /// Publish the log to other services.
    #[command(subcommand)]
    Relay(Relay),
    /// Replace the key that signs checkpoints of the log.
    ///
    /// Every instance signs with the new key at once. The private part of the former key is deleted; its public part stays in `GET
    /// /v1/log/keys`, so that old checkpoints can be verified. Prints the new public key.
    RotateLogKey(RotateLogKey),
    /// Print the completions of a shell.
    ///
    /// For example: `passbook completions bash > /etc/bash_completion.d/passbook`.
    Completions(Completions),
    /// Print the OpenAPI document, from which clients can be generated.
    ///
    /// Needs no database: `passbook openapi > openapi.json`.
    Openapi,
}

/// The options of `migrate`.
#[derive(Args, Clone, Debug)]
pub struct Migrate {
    /// Distribute the tables over the nodes of a Citus cluster, by partition. The log must not hold any event. With --partitions,
    /// the number of shards follows from it; without, there are 64.
    #[arg(long)]
    pub distribute: bool,

    /// The database of the log.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// The partitions of a new log.
    #[command(flatten)]
    pub partitions: PartitionArgs,

    /// The log lines.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The options of `verify`.
#[derive(Args, Clone, Debug)]
pub struct Verify {
    /// A head of the log that was saved earlier: `<position>-<hash>`, with at least the first 8 digits of the hash. Fails if the
    /// log does not contain it. With several partitions, a list of `<partition>:<position>-<hash>`, separated by commas.
    #[arg(long, alias = "witness", value_name = "HEAD")]
    pub expect_head: Option<String>,

    /// A checkpoint of the log that was kept: the file of a signed note. Fails if the log does not contain it. The option can be
    /// repeated; the log must then contain each of them.
    #[arg(long = "checkpoint", value_name = "FILE")]
    pub checkpoints: Vec<PathBuf>,

    /// The public key that signed the checkpoints, as `GET /v1/log/keys` shows it and as it was kept outside the database. The option
    /// can be repeated after a replacement of the key. Without it, the keys that the database lists are trusted.
    #[arg(long = "log-key", value_name = "KEY", requires = "checkpoints")]
    pub log_keys: Vec<VerifierKey>,

    /// Print the result as one JSON object on standard output.
    #[arg(long)]
    pub json: bool,

    /// The database of the log.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// The log lines.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The options of `rotate-log-key`.
#[derive(Args, Clone, Debug)]
pub struct RotateLogKey {
    /// The database of the log.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// The key file.
    #[command(flatten)]
    pub keys: KeyArgs,

    /// The log lines.
    #[command(flatten)]
    pub log: LogArgs,
}

/// What `export` writes.
#[derive(Clone, Debug, Subcommand)]
pub enum Export {
    /// Write the journal: every movement of money with its balanced postings.
    ///
    /// Reads the log with and without a running service. Without --to, the journal ends at the last event of now. That of a period
    /// that is over is final. A file gets its name when it is complete; until then it ends in `.part`.
    #[command(after_long_help = TRY_EXPORT)]
    Journal(ExportJournal),
}

/// The options of `export journal`.
#[derive(Args, Clone, Debug)]
pub struct ExportJournal {
    /// The format: `jsonl` has one JSON object a line and amounts in minor units, `hledger` amounts in major units.
    #[arg(long, value_enum, default_value_t)]
    pub format: JournalFormat,

    /// The first day, in UTC. Default: the day of the first event.
    #[arg(long, value_name = "DAY", value_parser = day)]
    pub from: Option<NaiveDate>,

    /// The day after the last, in UTC. Default: all events up to now.
    #[arg(long, value_name = "DAY", value_parser = day)]
    pub to: Option<NaiveDate>,

    /// The file to write; `-` is standard output.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// The database of the log.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// The log lines.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Parses a day such as `2026-01-31`, as the API does.
fn day(text: &str) -> Result<NaiveDate, String> {
    calendar_date(text).ok_or_else(|| "it must be a day in UTC such as 2026-01-31".to_owned())
}

/// Parses `true` or `false`. `clap` would list them as possible values without any help.
fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "it must be true or false".to_owned())
}

/// The options of `doctor`.
#[derive(Args, Clone, Debug)]
pub struct Doctor {
    /// Print the result as one JSON object on standard output.
    #[arg(long)]
    pub json: bool,

    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// The limit of its clock.
    #[command(flatten)]
    pub clock: ClockArgs,

    /// The log lines.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The destinations of the log.
#[derive(Clone, Debug, Subcommand)]
pub enum Relay {
    /// Publish every event, in order, as a CloudEvents message to NATS JetStream.
    ///
    /// Each partition has a stream, created on the first start. Events of partition 0 go to the stream passbook-0 under the
    /// subjects passbook.0.<type>. The event at position n is message n. The relay can be killed at any time; it continues
    /// where the stream ends, and waits for an unreachable database or server. It exits with code 1 and an explanation if an
    /// operator must act: the stream is missing, truncated or full. Run one relay beside the service; a second one is harmless.
    Nats(Box<RelayNats>),
}

/// The options of `relay nats`.
#[derive(Args, Clone, Debug)]
pub struct RelayNats {
    /// The NATS server (`tls://user:password@host:4222`, `nats://token@host`); the servers of a cluster are separated by commas.
    #[arg(long, env = "PASSBOOK_RELAY_NATS_URL", hide_env_values = true, default_value = "nats://127.0.0.1:4222")]
    pub relay_nats_url: SecretString,

    /// A credentials file for the NATS server, as `nsc` writes it.
    #[arg(long, env = "PASSBOOK_RELAY_NATS_CREDENTIALS_FILE")]
    pub relay_nats_credentials_file: Option<PathBuf>,

    /// The prefix of the streams' names; a dash and the partition follow.
    #[arg(long, env = "PASSBOOK_RELAY_STREAM", default_value = "passbook")]
    pub relay_stream: String,

    /// The address of the relay's metrics (`GET /metrics`). Default: no metrics.
    #[arg(long, env = "PASSBOOK_RELAY_LISTEN")]
    pub relay_listen: Option<SocketAddr>,

    /// Whether a checkpoint of the log is published every minute, `true` or `false`. It needs the key file.
    #[arg(long, env = "PASSBOOK_RELAY_CHECKPOINTS", default_value = "false", action = ArgAction::Set, value_parser = boolean)]
    pub relay_checkpoints: bool,

    /// Create a missing stream again, and publish again the events that a truncated stream lacks.
    #[arg(long)]
    pub refill: bool,

    /// The database of the log.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// The key file.
    #[command(flatten)]
    pub keys: KeyArgs,

    /// The log lines.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The options of `rebuild`.
#[derive(Args, Clone, Debug)]
pub struct Rebuild {
    /// The name of the view, as in `GET /v1/projections`.
    pub projection: String,

    /// Compare every row with the log before the view goes live, instead of a sample of accounts.
    #[arg(long)]
    pub verify: bool,

    /// Continue an interrupted rebuild.
    #[arg(long)]
    pub resume: bool,

    /// The database of the log.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// The log lines.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The options of `copy`.
#[derive(Args, Clone, Debug)]
pub struct Copy {
    /// The database of the new log (`postgres://user:password@host/database`).
    #[arg(long, env = "PASSBOOK_COPY_TO", hide_env_values = true)]
    pub to: SecretString,

    /// Copy new events, too, until Ctrl-C.
    #[arg(long)]
    pub follow: bool,

    /// The database of the old log.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// The partitions of the new log.
    #[command(flatten)]
    pub partitions: PartitionArgs,

    /// The log lines.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The options of `import`.
#[derive(Args, Clone, Debug)]
pub struct Import {
    /// The file with the commands; `-` is standard input.
    pub file: PathBuf,

    /// The URL of the service.
    #[arg(long, env = "PASSBOOK_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,

    /// The access token. Default: none, for a service without access control.
    #[arg(long, env = "PASSBOOK_TOKEN", hide_env_values = true)]
    pub token: Option<SecretString>,

    /// A file that holds the access token, in place of PASSBOOK_TOKEN. It is read again when the token has expired.
    #[arg(long, env = "PASSBOOK_TOKEN_FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,

    /// The name from which the keys of lines without one are derived. Default: the name of the file, without its folder and
    /// without `.gz`. Standard input has no name, so it needs a prefix if a line has no key.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub key_prefix: Option<String>,

    /// Write the refused commands to this file: one JSON object a line, with line, status, code, problem and command. The service
    /// then sends full results, which takes a little longer.
    #[arg(long, value_name = "FILE")]
    pub refusals: Option<PathBuf>,
}

/// The options of `token`.
#[derive(Args, Clone, Debug)]
pub struct Token {
    /// The subject, which owns the accounts that are opened with the token.
    #[arg(long)]
    pub sub: String,

    /// The scopes, separated by spaces.
    #[arg(long, default_value = "accounts:read accounts:write")]
    pub scope: String,

    /// How long the token is valid, in seconds.
    #[arg(long, alias = "lasts-s", default_value = "3600")]
    pub expires_in_seconds: NonZeroU32,

    /// The file of the private key. Default: `development.key` in the data folder.
    #[arg(long)]
    pub key: Option<PathBuf>,

    /// The data folder.
    #[command(flatten)]
    pub folder: DataDirArgs,

    /// The issuer and the audience of the token.
    #[command(flatten)]
    pub provider: ProviderArgs,
}

/// The options of `completions`.
#[derive(Args, Clone, Copy, Debug)]
pub struct Completions {
    /// The shell.
    pub shell: Shell,
}
