//! `bench replay` drives a file of real movements through a running Passbook and checks every
//! balance; `bench run` measures a fresh Passbook beside bare Postgres and a peer on the same server;
//! `bench grow` measures what a large log changes; `bench feed` measures how soon many readers have what was recorded;
//! `bench relay` how fast the log gets to NATS; `bench scale` what instances, partitions and traces change.
//!
//! Reading order: `replay` (`movements`, `client`, `latency`), then `run` (`service`, `server`, `rig`, `wrk`,
//! `yardstick`, `row`, `tokens`, `steady`, `open_model`, `projections`, `peer`), then `grow` (`fill`), and what they tell (`report`,
//! `growth`, `table`, `chart`, `publish`).

mod accounts;
mod chart;
mod client;
mod feed;
mod fill;
mod grow;
mod growth;
mod latency;
mod machine;
mod movements;
mod open_model;
mod peer;
mod postgres;
mod process;
mod projections;
mod publish;
mod relay;
mod replay;
mod report;
mod rig;
mod row;
mod run;
mod scale;
mod schedule;
mod server;
mod service;
mod steady;
mod table;
mod tokens;
mod tools;
mod wrk;
mod yardstick;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Replays real movements through Passbook, and measures it beside bare Postgres.
#[derive(Parser)]
#[command(name = "bench", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Replay(replay::Options),
    Run(run::Options),
    Grow(grow::Options),
    Feed(feed::Options),
    Relay(relay::Options),
    Scale(scale::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Replay(options) => replay::replay(options).await,
        Command::Run(options) => run::run(options).await,
        Command::Grow(options) => grow::grow(options).await,
        Command::Feed(options) => feed::feed(options).await,
        Command::Relay(options) => relay::relay(options).await,
        Command::Scale(options) => scale::scale(options).await,
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_well_formed() {
        super::Arguments::command().debug_assert();
    }
}
