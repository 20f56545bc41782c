//! The command line: parses the settings, runs the bank until it is told to end.

use std::{io::Write, process::ExitCode};

use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::resource::{Resource, setrlimit};
use passbook::{
    audit::{Witness, verify},
    auth::development,
    config::{Cli, Config, Rebuild, Subcommands, Token, Verify},
    database::{self, Database},
    http,
    read_model::rebuild,
    service::{self, Service},
    telemetry,
};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::subcommand() {
        Subcommands::Serve(config) => serve(config).await,
        Subcommands::Migrate(config) => migrate(config).await,
        Subcommands::Verify(wanted) => verify(wanted).await,
        Subcommands::Rebuild(wanted) => rebuild(wanted).await,
        Subcommands::Token(wanted) => token(&wanted),
        Subcommands::Openapi => print(&http::openapi_json()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("passbook: {sentence}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> Result<(), String> {
    keep_to_itself()?;
    let _lines = telemetry::start(&config)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;

    let service = tokio::select! {
        started = Service::start(&config) => started.map_err(|error| error.to_string())?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    eprintln!("{}", service::welcome(&config, service.address()));
    print(&format!("listening on http://{}\n", service.address()))?;

    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("ending: what was accepted is answered first");
    tokio::select! {
        () = service.stop() => Ok(()),
        _ = interrupt.recv() => Err("ended at once, as it was told a second time".to_owned()),
        _ = terminate.recv() => Err("ended at once, as it was told a second time".to_owned()),
    }
}

/// What this process knows, and what its environment told it, is written into no core dump and read by no other process of
/// the same user.
fn keep_to_itself() -> Result<(), String> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_dumpable(false).map_err(|error| error.to_string())?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|error| error.to_string())
}

async fn migrate(config: Config) -> Result<(), String> {
    let _lines = telemetry::start(&config)?;
    let database = Database::open(&config).await.map_err(|error| error.to_string())?;
    let migrated = database.migrate().await.map_err(|error| error.to_string());
    database.close().await;
    migrated
}

async fn verify(wanted: Verify) -> Result<(), String> {
    let Verify { witness, json, config } = wanted;
    let witness = witness.as_deref().map(str::parse::<Witness>).transpose();
    let witness = witness.map_err(|error| format!("--witness: {error}"))?;
    let _lines = telemetry::start(&config)?;
    let database = Database::open_existing(&config).await.map_err(|error| error.to_string())?;
    let outcome = check_books(&database, witness.as_ref(), json).await;
    database.close().await;
    outcome
}

async fn check_books(database: &Database, witness: Option<&Witness>, json: bool) -> Result<(), String> {
    database.check().await.map_err(|error| error.to_string())?;
    let bar = ProgressBar::new(0).with_style(bar_style("checking"));
    let told = verify::verify(&database.auditor(), service::PARTITION, witness, |read, of| {
        bar.set_length(of.unsigned_abs());
        bar.set_position(read.unsigned_abs());
    })
    .await;
    bar.finish_and_clear();
    match (told, json) {
        (Ok(report), false) => print(&format!("{report}\n")),
        (Ok(report), true) => print(&report.to_json()),
        (Err(verify::Error::Broken(finding)), true) => {
            print(&finding.to_json())?;
            Err("the books are not in order".to_owned())
        }
        (Err(error), _) => Err(error.to_string()),
    }
}

async fn rebuild(wanted: Rebuild) -> Result<(), String> {
    let Rebuild { projection, verify, resume, config } = wanted;
    let _lines = telemetry::start(&config)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let database = Database::open_existing(&config).await.map_err(|error| error.to_string())?;
    let outcome = tokio::select! {
        outcome = build(&database, &projection, verify, resume) => outcome,
        _ = interrupt.recv() => Err(format!("stopped half-way: `passbook rebuild {projection} --resume` goes on")),
    };
    database.close().await;
    outcome
}

async fn build(database: &Database, name: &str, verify: bool, resume: bool) -> Result<(), String> {
    database.check().await.map_err(|error| error.to_string())?;
    let bar = ProgressBar::new(0).with_style(bar_style("building"));
    let connect = database.projector();
    let built = rebuild::rebuild(connect, service::PARTITION, name, verify, resume, |read, of| {
        bar.set_length(of.unsigned_abs());
        bar.set_position(read.unsigned_abs());
    })
    .await;
    bar.finish_and_clear();
    let built = built.map_err(|error| error.to_string())?;
    print(&format!("{name} is rebuilt: generation {} is live at position {}\n", built.generation, built.position))
}

fn token(wanted: &Token) -> Result<(), String> {
    let Token { sub, scope, lasts_s, key, config } = wanted;
    let key = key.clone().unwrap_or_else(|| database::data_dir(config).join(development::KEY_FILE));
    let claims = development::Wanted {
        subject: sub,
        scope,
        lasts_s: lasts_s.get(),
        issuer: config.auth_issuer.as_deref(),
        audience: config.auth_audience.as_deref(),
    };
    let (token, jwks_file) = development::token(&key, &claims).map_err(|error| error.to_string())?;
    eprintln!("a service started with PASSBOOK_AUTH_JWKS_FILE={} takes this token:", jwks_file.display());
    print(&format!("{token}\n"))
}

fn bar_style(doing: &str) -> ProgressStyle {
    let template = format!("{doing} {{wide_bar}} {{human_pos}} of {{human_len}} events, {{eta}} left");
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// To standard output; a reader who hung up is no fault of ours.
fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.to_string()),
        Ok(()) | Err(_) => Ok(()),
    }
}
