//! The command line: parses the settings, runs the bank until it is told to end.

use std::{io::Write, process::ExitCode};

use passbook::{
    config::{Cli, Config, Subcommands},
    database::Database,
    http,
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
    service.stop().await;
    Ok(())
}

async fn migrate(config: Config) -> Result<(), String> {
    let _lines = telemetry::start(&config)?;
    let database = Database::open(&config).await.map_err(|error| error.to_string())?;
    let migrated = database.migrate().await.map_err(|error| error.to_string());
    database.close().await;
    migrated
}

/// To standard output; a reader who hung up is no fault of ours.
fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.to_string()),
        Ok(()) | Err(_) => Ok(()),
    }
}
