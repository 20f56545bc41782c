//! The benchmarks of Passbook. There is one module per subcommand. `replay` checks balances against recorded movements. `run`
//! compares with bare Postgres and a peer. `large_log` (`bench grow`) measures a large log, `feed` the event stream, and `relay`
//! the relay to NATS, `webhooks` the deliveries to endpoints. `scale` measures instances, partitions and traces.
//!
//! Reading order: `replay` (`movements`, `client`), then `run` (`service`, `process`, `latency`, `row_length`, `harness`, `seed`,
//! `each_batches`, `wrk`, `baseline`, `batches`, `holds`, `constant_rate`, `open_loop`, `stalls`, `projections`,
//! `projection_watch`, `rebuild`, `other_servers`), then `large_log` (`fill`, `large_log_phase`, `queries`, `bulk_baseline`,
//! `sizes`, `verification`), then the output (`result_row`, `report`, `comparison`, `large_log_figures`, `large_log_report`,
//! `table`, `chart`, `publish`).

mod baseline;
mod batches;
mod bulk_baseline;
mod chart;
mod client;
mod comparison;
mod constant_rate;
mod each_batches;
mod feed;
mod fill;
mod harness;
mod holds;
mod large_log;
mod large_log_figures;
mod large_log_phase;
mod large_log_report;
mod latency;
mod machine;
mod movements;
mod open_loop;
mod other_servers;
mod postgres;
mod process;
mod projection_watch;
mod projections;
mod publish;
mod queries;
mod rebuild;
mod relay;
mod replay;
mod report;
mod resource_usage;
mod result_row;
mod row_length;
mod run;
mod scale;
mod schedule;
mod seed;
mod service;
mod sizes;
mod stalls;
mod table;
mod verification;
mod webhooks;
mod wrk;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Benchmarks Passbook, and replays recorded movements.
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
    Grow(large_log::Options),
    Feed(feed::Options),
    Relay(relay::Options),
    Scale(scale::Options),
    Webhooks(webhooks::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    // The HTTP client uses the crypto provider of the process. No other provider is installed before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outcome = match Arguments::parse().command {
        Command::Replay(options) => replay::replay(options).await,
        Command::Run(options) => run::run(options).await,
        Command::Grow(options) => large_log::grow(options).await,
        Command::Feed(options) => feed::feed(options).await,
        Command::Relay(options) => relay::relay(options).await,
        Command::Scale(options) => scale::scale(options).await,
        Command::Webhooks(options) => webhooks::webhooks(options).await,
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
    fn the_command_line_definition_is_valid() {
        super::Arguments::command().debug_assert();
    }
}
