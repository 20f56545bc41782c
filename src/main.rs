//! The command line: parses the settings, runs a subcommand, and serves until a signal stops the process.

mod export;
mod import;
mod log_key;
mod progress;
mod verify;

use std::{env, io::Write, process::ExitCode, time::Duration};

use clap::CommandFactory;
use nix::sys::resource::{Resource, setrlimit};
use passbook::config::{
    self, Cli, Completions, Config, DatabaseArgs, Doctor, Export, Migrate, Rebuild, Relay, RelayNats, Subcommands,
    Token,
};
use passbook::http;
use passbook::service::{self, Service};
use passbook_auth::development;
use passbook_database::{self as database, Database};
use passbook_event_store::Partitions;
use passbook_read_model::rebuild_command::{self, Options};
use passbook_repartition::{CopiedLog, ProjectorSet, Repartition};
use passbook_telemetry as telemetry;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use progress::Progress;

/// The interval between two polls of `passbook copy --follow`.
const FOLLOW_MS: u64 = 250;

/// The exit code of a wrong command line, as `clap` has it.
const USAGE_ERROR: u8 = 2;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // For the libraries that use the crypto provider of the process. No other provider is installed before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let subcommand = match config::parse(env::args_os()) {
        Ok(subcommand) => subcommand,
        Err(reason) => {
            telemetry::report_failure(&reason);
            return ExitCode::from(USAGE_ERROR);
        }
    };
    let outcome = match subcommand {
        Subcommands::Serve(config) => serve(config).await,
        Subcommands::Migrate(config) => migrate(config).await,
        Subcommands::Verify(wanted) => verify::run(wanted).await,
        Subcommands::Doctor(wanted) => doctor(wanted).await,
        Subcommands::Rebuild(wanted) => rebuild(wanted).await,
        Subcommands::Copy(wanted) => copy(wanted).await,
        Subcommands::Token(wanted) => token(&wanted),
        // Its exit code also says whether commands were refused.
        Subcommands::Import(wanted) => return import::run(wanted).await,
        Subcommands::Export(Export::Journal(wanted)) => export::journal(wanted).await,
        Subcommands::Relay(Relay::Nats(wanted)) => relay(*wanted).await,
        Subcommands::RotateLogKey(wanted) => log_key::rotate(wanted).await,
        Subcommands::Completions(wanted) => completions(wanted),
        Subcommands::Openapi => print(&http::openapi_json()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            telemetry::report_failure(&message);
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> Result<(), String> {
    disable_core_dumps()?;
    let telemetry = telemetry::start(&config.log.settings())?;
    for warning in config::unknown_variables(env::vars_os().map(|(name, _)| name)) {
        tracing::warn!(warning, "unknown setting");
    }
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;

    let mut service = tokio::select! {
        started = Service::start(&config) => started.map_err(|error| error.to_string())?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    service::announce_start(&config, &service, telemetry.is_json);
    print(&format!("listening on http://{}\n", service.address()))?;

    let failure = tokio::select! {
        // A task that has ended decides the exit code, also if a signal comes at the same time.
        biased;
        ended = service.task_ended() => Some(ended),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    };
    match &failure {
        None => tracing::info!("shutdown started; accepted requests are answered"),
        Some(ended) => {
            tracing::error!(task = ended.name, reason = ended.reason, "background task ended; shutting down")
        }
    }
    let stopped = tokio::select! {
        stopped = service.stop() => stopped.map_err(|error| error.to_string()),
        _ = interrupt.recv() => Err("stopped at once by a second signal".to_owned()),
        _ = terminate.recv() => Err("stopped at once by a second signal".to_owned()),
    };
    match failure {
        None => stopped,
        // The exit code makes a process manager start the service again.
        Some(ended) => Err(ended.to_string()),
    }
}

/// Keeps secrets of the memory and the environment out of core dumps, and away from other processes of the same user.
fn disable_core_dumps() -> Result<(), String> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_dumpable(false).map_err(|error| error.to_string())?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|error| error.to_string())
}

async fn migrate(wanted: Migrate) -> Result<(), String> {
    let Migrate { distribute, database, partitions, log } = wanted;
    let _telemetry = telemetry::start(&log.settings())?;
    let database = Database::open(&database.settings()).await.map_err(|error| error.to_string())?;
    let mut migrated = database.migrate().await;
    if distribute && migrated.is_ok() {
        migrated = database.distribute(partitions.get()).await;
    }
    database.close().await;
    migrated.map_err(|error| error.to_string())
}

async fn doctor(wanted: Doctor) -> Result<(), String> {
    let Doctor { json, database, clock, log } = wanted;
    let _telemetry = telemetry::start(&log.settings())?;
    let database = Database::open_existing(&database.settings()).await.map_err(|error| error.to_string())?;
    let report = service::examine(&database, clock).await;
    database.close().await;
    let report = report.map_err(|error| error.to_string())?;
    print(&if json { report.to_json() } else { format!("{report}\n") })?;
    match report.unsafe_settings()[..] {
        [] => Ok(()),
        [..] => Err(format!("a crash can lose data: {}", report.unsafe_settings().join(", "))),
    }
}

async fn rebuild(wanted: Rebuild) -> Result<(), String> {
    let Rebuild { projection, verify, resume, database, log } = wanted;
    let _telemetry = telemetry::start(&log.settings())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let database = Database::open_existing(&database.settings()).await.map_err(|error| error.to_string())?;
    let outcome = tokio::select! {
        outcome = build(&database, &projection, verify, resume) => outcome,
        _ = interrupt.recv() => Err(format!("interrupted: `passbook rebuild {projection} --resume` continues")),
    };
    database.close().await;
    outcome
}

async fn build(database: &Database, name: &str, verify: bool, resume: bool) -> Result<(), String> {
    database.check_schema().await.map_err(|error| error.to_string())?;
    let progress = Progress::of("rebuilding");
    let connect = database.projector();
    let partitions = service::partitions_of(database).await.map_err(|error| error.to_string())?;
    let options = Options { name, check_all: verify, resume };
    let built = rebuild_command::rebuild(connect, partitions, options, |read, of| progress.show(read, of)).await;
    progress.end();
    let built = built.map_err(|error| error.to_string())?;
    print(&format!("{name} is rebuilt: generation {} is live at position {}\n", built.generation, built.position))
}

async fn copy(wanted: config::Copy) -> Result<(), String> {
    let config::Copy { to, follow, database, partitions, log } = wanted;
    let _telemetry = telemetry::start(&log.settings())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let partitions =
        partitions.get().ok_or("--partitions is required: it sets the number of partitions of the new log")?;
    let new = DatabaseArgs { database_url: Some(to), database_url_file: None, ..database.clone() };
    let source = Database::open_existing(&database.settings()).await.map_err(|error| error.to_string())?;
    let outcome = tokio::select! {
        outcome = copy_into(&source, &new, partitions, follow) => outcome,
        failed = telemetry::supervision::failed() => Err(service::TaskEnded::from(failed).to_string()),
        // The progress is stored together with each page, so the next run copies an interrupted page again.
        _ = interrupt.recv() => match follow {
            true => Ok(()),
            false => Err("interrupted: run the same command again to continue".to_owned()),
        },
    };
    source.close().await;
    if follow && outcome.is_ok() {
        print("stopped: stop the service, then run the same command without --follow to copy the rest\n")?;
    }
    outcome
}

async fn copy_into(source: &Database, new: &DatabaseArgs, partitions: Partitions, follow: bool) -> Result<(), String> {
    source.check_schema().await.map_err(|error| error.to_string())?;
    let target = Database::open(&new.settings()).await.map_err(|error| format!("--to: {error}"))?;
    target.ensure_schema().await.map_err(|error| format!("--to: {error}"))?;
    let from = service::partitions_of(source).await.map_err(|error| error.to_string())?;
    let opened = Repartition::open(&source.writer(), &target.writer(), from, partitions).await;
    let mut repartition = opened.map_err(|error| error.to_string())?;
    let projectors = ProjectorSet::start(&target.projector(), partitions).await.map_err(|error| error.to_string())?;
    let progress = Progress::of("copying");
    let on_progress = |copied: i64, total: i64| progress.show(copied, total);
    if follow {
        // Ctrl-C ends this loop: `copy` drops the future.
        loop {
            repartition.catch_up(on_progress).await.map_err(|error| error.to_string())?;
            sleep(Duration::from_millis(FOLLOW_MS)).await;
        }
    }
    let copied = repartition.finish(on_progress).await;
    let CopiedLog { events, position } = copied.map_err(|error| error.to_string())?;
    progress.end();
    projectors.finish().await;
    print(&format!(
        "copied {events} events, up to position {position}: start the service on the new log, and never serve the old log again\n"
    ))
}

async fn relay(wanted: RelayNats) -> Result<(), String> {
    disable_core_dumps()?;
    let _telemetry = telemetry::start(&wanted.log.settings())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let shutdown = CancellationToken::new();
    let print_address = |address| print(&format!("listening on http://{address}\n"));
    let relay = service::run_relay(wanted, shutdown.clone(), print_address);
    tokio::pin!(relay);
    tokio::select! {
        outcome = &mut relay => return outcome,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("relay shutdown started; waiting for outstanding acknowledgements");
    shutdown.cancel();
    relay.await
}

fn token(wanted: &Token) -> Result<(), String> {
    let Token { sub, scope, expires_in_seconds, key, folder, provider } = wanted;
    let key = key.clone().unwrap_or_else(|| database::data_dir(folder.data_dir.as_deref()).join(development::KEY_FILE));
    let claims = development::TokenClaims {
        subject: sub,
        scope,
        valid_s: expires_in_seconds.get(),
        issuer: provider.auth_issuer.as_deref(),
        audience: provider.auth_audience.as_deref(),
    };
    let (token, jwks_file) = development::token(&key, &claims).map_err(|error| error.to_string())?;
    eprintln!("a service with PASSBOOK_AUTH_JWKS_FILE={} accepts this token:", jwks_file.display());
    print(&format!("{token}\n"))
}

fn completions(wanted: Completions) -> Result<(), String> {
    let mut script = vec![];
    clap_complete::generate(wanted.shell, &mut Cli::command(), "passbook", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Prints to standard output. A closed pipe is not an error.
fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.to_string()),
        Ok(()) | Err(_) => Ok(()),
    }
}
