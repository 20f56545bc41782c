//! `passbook import` on a terminal: progress bar, notices of interruptions, summary and exit code.

use std::{fmt::Write, path::Path, process::ExitCode, time::Duration};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use passbook::config;
use passbook_import::{
    Endpoint, Error, Event, Import, Input, RefusalFile, ResultForm, RetryPolicy, Source, Summary, Token,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

/// Some commands were refused.
const EXIT_REFUSED: u8 = 1;
/// The import ended before the last line. Also the exit code of an invalid command line.
const EXIT_FAILED: u8 = 2;
/// How often the bar of an input without a length moves.
const TICK_MS: u64 = 250;

/// Runs an import, and prints its summary.
pub async fn run(wanted: config::Import) -> ExitCode {
    try_run(wanted).await.unwrap_or_else(|message| {
        eprintln!("passbook: {message}");
        ExitCode::from(EXIT_FAILED)
    })
}

async fn try_run(wanted: config::Import) -> Result<ExitCode, String> {
    let started = Instant::now();
    let mut import = prepare(wanted).map_err(|error| error.to_string())?;
    let bar = progress_bar(import.length());
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let outcome = tokio::select! {
        outcome = import.run(|event| show(&bar, started, &event)) => outcome.map_err(|error| error.to_string()),
        _ = interrupt.recv() => Err("interrupted: run the same command again to continue".to_owned()),
        _ = terminate.recv() => Err("terminated: run the same command again to continue".to_owned()),
    };
    bar.finish_and_clear();
    crate::print(&render(import.summary(), started.elapsed()))?;
    outcome?;
    Ok(if import.summary().refused() > 0 { ExitCode::from(EXIT_REFUSED) } else { ExitCode::SUCCESS })
}

fn prepare(wanted: config::Import) -> Result<Import, Error> {
    let config::Import { file, url, token, token_file, key_prefix, refusals } = wanted;
    let source = if file == Path::new("-") { Source::StandardInput } else { Source::File(file) };
    let token = match (token, token_file) {
        (Some(token), _) => Token::Value(token),
        (None, Some(path)) => Token::File(path),
        (None, None) => Token::None,
    };
    let form = if refusals.is_some() { ResultForm::Full } else { ResultForm::Minimal };
    let endpoint = Endpoint::new(&url, token, form)?;
    let input = Input::open(&source, key_prefix)?;
    let refusal_file = refusals.map(|path| RefusalFile::create(&path, &input)).transpose()?;
    Ok(Import::new(endpoint, input, refusal_file, RetryPolicy::default()))
}

/// A bar over the bytes of the file, or a spinner if their number is unknown. Hidden unless standard error is a terminal.
fn progress_bar(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), "importing {wide_bar} {msg}, {eta} left"),
        None => (ProgressBar::new_spinner(), "importing {spinner} {msg}, {elapsed}"),
    };
    bar.enable_steady_tick(Duration::from_millis(TICK_MS));
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(bar: &ProgressBar, started: Instant, event: &Event<'_>) {
    match event {
        Event::Progress { commands, bytes_read } => {
            bar.set_position(*bytes_read);
            let rate = per_second(*commands, started.elapsed());
            bar.set_message(format!("{} commands, {rate}/s", HumanCount(*commands)));
        }
        Event::Retry { reason, attempts, wait } => {
            let notice = format!("passbook: {reason}; attempt {} follows in {} ms", attempts + 1, wait.as_millis());
            bar.suspend(|| eprintln!("{notice}"));
        }
    }
}

/// The summary, one number a line.
fn render(summary: &Summary, elapsed: Duration) -> String {
    let mut text = String::new();
    let mut row = |name: &str, count: u64, note: &str| {
        let _ = writeln!(text, "{name:<26} {:>13}{note}", HumanCount(count).to_string());
    };
    // After an interruption, an earlier request of this run may have executed them.
    let is_repetition = summary.retries == 0 && summary.replayed > 0 && summary.replayed == summary.commands();
    row("commands", summary.commands(), "");
    row("executed", summary.executed, "");
    row("replayed", summary.replayed, if is_repetition { "  an earlier run executed all of them" } else { "" });
    row("refused", summary.refused(), "");
    for (code, refusals) in &summary.refusals {
        let lines: Vec<String> = refusals.first_lines.iter().map(u64::to_string).collect();
        let more = if refusals.count > lines.len() as u64 { ", …" } else { "" };
        row(&format!("  {code}"), refusals.count, &format!("  line {}{more}", lines.join(", ")));
    }
    if summary.retries > 0 {
        row("interruptions", summary.retries, "");
    }
    let (time, rate) = (HumanDuration(elapsed), per_second(summary.commands(), elapsed));
    let _ = writeln!(text, "{:<26} {:>13}  {rate} commands/s", "time", time.to_string());
    text
}

fn per_second(commands: u64, elapsed: Duration) -> HumanCount {
    HumanCount((commands as f64 / elapsed.as_secs_f64().max(f64::EPSILON)) as u64)
}

#[cfg(test)]
mod tests {
    use passbook_import::Refusals;

    use super::*;

    #[test]
    fn the_summary_names_the_first_lines_of_each_refusal() {
        let mut summary = Summary { executed: 1_999_990, replayed: 2, ..Summary::default() };
        let refusals = |count, first_lines| Refusals { count, first_lines };
        summary.refusals.insert("account_closed".to_owned(), refusals(2, vec![17, 23]));
        summary.refusals.insert("insufficient_funds".to_owned(), refusals(7, vec![1, 2, 3, 4, 5]));
        let text = render(&summary, Duration::from_secs(50));
        for line in [
            "commands                       2,000,001",
            "refused                                9",
            "  account_closed                       2  line 17, 23",
            "  insufficient_funds                   7  line 1, 2, 3, 4, 5, …",
            "time                          50 seconds  40,000 commands/s",
        ] {
            assert!(text.lines().any(|printed| printed == line), "{line:?} is missing:\n{text}");
        }
        assert!(!text.contains("interruptions") && !text.contains("earlier run"), "{text}");
    }

    #[test]
    fn the_summary_names_an_earlier_run_only_if_nothing_was_sent_again() {
        let names_earlier_run =
            |summary: &Summary| render(summary, Duration::from_secs(1)).contains("an earlier run executed all of them");
        let repetition = Summary { replayed: 7, ..Summary::default() };
        assert!(names_earlier_run(&repetition));
        assert!(!names_earlier_run(&Summary { retries: 1, ..repetition.clone() }));
        assert!(!names_earlier_run(&Summary { executed: 1, ..repetition }));
    }
}
