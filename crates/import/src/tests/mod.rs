//! The import against a service that interrupts it in every way.

mod fake_service;

use std::{fs, io::Cursor, path::Path, sync::Once, time::Duration};

use self::fake_service::{Answer, FakeService};
use crate::*;

/// For the HTTP client, as `main` does it.
pub(crate) fn install_crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

const POLICY: RetryPolicy = RetryPolicy {
    wait_min: Duration::from_millis(1),
    wait_max: Duration::from_millis(20),
    attempts_max: 5,
    result_wait_max: Duration::from_secs(20),
};

fn deposits(count: usize) -> String {
    (1..=count).map(|n| format!("{{\"command\":\"deposit\",\"amount\":{n}}}\n")).collect()
}

fn import(service: &FakeService, text: &str, policy: RetryPolicy) -> Import {
    import_with(service, text, policy, Token::None, None)
}

fn import_with(
    service: &FakeService,
    text: &str,
    policy: RetryPolicy,
    token: Token,
    refusals: Option<&Path>,
) -> Import {
    install_crypto_provider();
    let endpoint = Endpoint::new(service.url(), token, ResultForm::Minimal).expect("a URL");
    let input = Input::read(Cursor::new(text.to_owned()), "test", KeyPrefix(Some("test".to_owned())), None);
    let refusals = refusals.map(|path| RefusalFile::create(path, &input).expect("a file"));
    Import::new(endpoint, input, refusals, policy)
}

/// Runs an import of this number of deposits against a service that first answers in these ways.
async fn run(count: usize, answers: &[Answer]) -> (FakeService, Summary, Result<(), Error>, Vec<String>) {
    let service = FakeService::start(answers).await;
    let mut import = import(&service, &deposits(count), POLICY);
    let mut reasons = Vec::new();
    let outcome = import
        .run(|event| match event {
            Event::Retry { reason, .. } => reasons.push(reason.to_owned()),
            Event::Progress { .. } => {}
        })
        .await;
    let summary = import.summary().clone();
    (service, summary, outcome, reasons)
}

#[tokio::test]
async fn every_line_is_executed_once_and_in_order() {
    let (service, summary, outcome, reasons) = run(20_000, &[]).await;
    outcome.expect("an import");
    assert_eq!((summary.executed, summary.replayed, summary.refused()), (20_000, 0, 0));
    assert!(reasons.is_empty(), "{reasons:?}");
    service.assert_executed_in_order(20_000);
    let request = &service.requests()[0];
    assert_eq!(
        (request["content-type"].as_str(), request["prefer"].as_str()),
        ("application/x-ndjson", "return=minimal")
    );
    assert!(!request.contains_key("accept-encoding") && !request.contains_key("authorization"), "{request:?}");
}

#[tokio::test]
async fn an_empty_input_sends_no_request() {
    let (service, summary, outcome, _) = run(0, &[]).await;
    outcome.expect("an import");
    assert_eq!((summary.commands(), service.requests().len()), (0, 0));
}

#[tokio::test]
async fn an_import_continues_after_every_kind_of_interruption() {
    for interruption in [
        Answer::ResetAfter(0),
        Answer::ResetAfter(1_000),
        Answer::EndAfter(1_000),
        Answer::ErrorLineAfter(1_000),
        Answer::Status(503, Some(0)),
        Answer::Status(500, None),
        Answer::Status(429, Some(0)),
        Answer::Status(408, None),
    ] {
        let (service, summary, outcome, reasons) = run(5_000, &[interruption]).await;
        outcome.unwrap_or_else(|error| panic!("{interruption:?}: {error}"));
        assert_eq!((summary.commands(), summary.retries), (5_000, 1), "{interruption:?} {reasons:?}");
        assert_eq!(summary.refused(), 0, "{interruption:?}");
        service.assert_executed_in_order(5_000);
    }
}

#[tokio::test]
async fn an_error_line_names_the_line_and_the_code() {
    let (_, _, outcome, reasons) = run(50, &[Answer::ErrorLineAfter(7)]).await;
    outcome.expect("an import");
    assert_eq!(reasons, ["line 8 was answered with 503 storage_unavailable"]);
}

#[tokio::test]
async fn many_interruptions_with_progress_do_not_end_an_import() {
    let (service, summary, outcome, _) = run(5_000, &[Answer::ResetAfter(50); 40]).await;
    outcome.expect("an import");
    assert_eq!((summary.commands(), summary.retries), (5_000, 40));
    service.assert_executed_in_order(5_000);
}

#[tokio::test]
async fn attempts_without_a_result_end_at_their_limit() {
    let (service, summary, outcome, reasons) = run(5_000, &[Answer::Status(503, Some(0)); 10]).await;
    let Err(Error::GivenUp { attempts: 5, line: 1, reason }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(reason, "503 storage_unavailable: Try again.");
    assert_eq!((summary.commands(), reasons.len(), service.requests().len()), (0, 4, 5));
    // The line that is refused for ever comes after others.
    let (_, summary, outcome, _) = run(
        50,
        &[
            Answer::ErrorLineAfter(9),
            Answer::ErrorLineAfter(0),
            Answer::ErrorLineAfter(0),
            Answer::ErrorLineAfter(0),
            Answer::ErrorLineAfter(0),
        ],
    )
    .await;
    assert!(matches!(outcome, Err(Error::GivenUp { line: 10, .. })), "{outcome:?}");
    assert_eq!(summary.executed, 9);
}

#[tokio::test]
async fn a_service_that_never_answers_is_left_after_a_wait() {
    let service = FakeService::start(&[Answer::Never; 2]).await;
    let policy = RetryPolicy { result_wait_max: Duration::from_millis(300), attempts_max: 100, ..POLICY };
    let mut import = import(&service, &deposits(30_000), policy);
    import.run(|_| {}).await.expect("an import");
    assert_eq!(import.summary().commands(), 30_000);
    assert!(import.summary().retries >= 2, "{:?}", import.summary());
    service.assert_executed_in_order(30_000);
}

#[tokio::test]
async fn results_that_arrive_late_are_waited_for() {
    // The service answers only when it has this number of lines: fewer than the window holds.
    let (service, summary, outcome, reasons) = run(30_000, &[Answer::Batches(4_000)]).await;
    outcome.expect("an import");
    assert_eq!(summary.executed, 30_000);
    assert!(reasons.is_empty(), "{reasons:?}");
    service.assert_executed_in_order(30_000);
}

/// Bytes that a proxy drops while it turns around would make one line of two.
#[tokio::test]
async fn only_one_line_is_sent_before_the_answer_begins() {
    let answers = [Answer::ResetAfter(100), Answer::LateBeginning];
    let (service, summary, outcome, _) = run(5_000, &answers).await;
    outcome.expect("an import");
    assert_eq!(summary.commands(), 5_000);
    assert_eq!(service.early_lines(), [1]);
    service.assert_executed_in_order(5_000);
}

#[tokio::test]
async fn an_expired_token_ends_the_import_and_names_the_line() {
    let (service, summary, outcome, _) = run(100, &[Answer::UnauthenticatedAfter(40)]).await;
    assert!(matches!(outcome, Err(Error::TokenRejected { line: 41, .. })), "{outcome:?}");
    assert_eq!((summary.executed, service.requests().len()), (40, 1));
    let (_, _, outcome, _) = run(100, &[Answer::Status(401, None)]).await;
    assert!(matches!(outcome, Err(Error::TokenRejected { line: 1, .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_renewed_token_in_the_file_continues_the_import() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    fs::write(&path, "first\n").expect("a file");
    let service = FakeService::start(&[Answer::UnauthenticatedAfter(40)]).await;
    let mut import = import_with(&service, &deposits(100), POLICY, Token::File(path.clone()), None);
    let renewed = path.clone();
    import.run(move |_| fs::write(&renewed, "second\n").expect("a file")).await.expect("an import");
    let tokens: Vec<_> = service.requests().iter().map(|request| request["authorization"].clone()).collect();
    assert_eq!(tokens, ["Bearer first", "Bearer second"]);
    service.assert_executed_in_order(100);
}

#[tokio::test]
async fn a_refused_request_ends_the_import_at_once() {
    for status in [302, 400, 403, 404, 413, 415] {
        let (_, summary, outcome, _) = run(100, &[Answer::Status(status, None)]).await;
        let Err(Error::Refused(reason)) = outcome else { panic!("{outcome:?}") };
        assert!(reason.starts_with(&status.to_string()) && summary.retries == 0, "{reason}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_ndjson_ends_the_import() {
    for answer in [Answer::Page, Answer::WrongIndex, Answer::TooMany] {
        let (_, _, outcome, _) = run(100, &[answer]).await;
        assert!(matches!(outcome, Err(Error::Protocol(_))), "{answer:?} {outcome:?}");
    }
}

#[tokio::test]
async fn a_url_without_a_service_ends_the_import_at_once() {
    let service = FakeService::start(&[]).await;
    let mut import = import(&service, &deposits(3), POLICY);
    service.stop().await;
    let outcome = import.run(|event| panic!("{event:?}")).await;
    let Err(Error::Unreachable { url, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(url, service.url());
}

#[tokio::test]
async fn a_second_run_of_the_same_lines_executes_nothing() {
    let service = FakeService::start(&[Answer::UnauthenticatedAfter(70)]).await;
    let text = deposits(100);
    assert!(import(&service, &text, POLICY).run(|_| {}).await.is_err());
    let mut second = import(&service, &text, POLICY);
    second.run(|_| {}).await.expect("an import");
    let executed = service.executed();
    assert_eq!(second.summary().commands(), 100);
    assert!(second.summary().replayed >= 70, "{:?}", second.summary());
    let mut third = import(&service, &text, POLICY);
    third.run(|_| {}).await.expect("an import");
    assert_eq!((third.summary().replayed, third.summary().executed), (100, 0));
    assert_eq!(service.executed(), executed);
}

#[tokio::test]
async fn refusals_are_counted_and_written_with_their_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("refusals.ndjson");
    let service = FakeService::start(&[]).await;
    let lines =
        "{\"command\":\"deposit\"}\n{\"refuse\":\"account_closed\"}\n\nnonsense\n{\"refuse\":\"account_closed\"}";
    let mut import = import_with(&service, lines, POLICY, Token::None, Some(&path));
    import.run(|_| {}).await.expect("an import");
    let summary = import.summary();
    assert_eq!((summary.executed, summary.refused()), (1, 3));
    assert_eq!(summary.refusals["account_closed"].first_lines, [2, 5]);
    let written = fs::read_to_string(&path).expect("the refusals");
    let expected = [
        r#"{"line":2,"status":422,"code":"account_closed","command":{"refuse":"account_closed"}}"#,
        r#"{"line":4,"status":400,"code":"malformed_request","command":"nonsense"}"#,
        r#"{"line":5,"status":422,"code":"account_closed","command":{"refuse":"account_closed"}}"#,
    ];
    assert_eq!(written.lines().collect::<Vec<_>>(), expected);
}

/// A pipe whose writer waits: each line gets its result before the next one is written.
#[tokio::test]
async fn lines_of_a_slow_input_are_sent_as_they_arrive() {
    use std::io::Write;

    install_crypto_provider();
    let service = FakeService::start(&[]).await;
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let endpoint = Endpoint::new(service.url(), Token::None, ResultForm::Minimal).expect("a URL");
    let input = Input::read(reader, "test", KeyPrefix(Some("pipe".to_owned())), None);
    let mut import = Import::new(endpoint, input, None, POLICY);
    writer.write_all(b"{\"n\":1}\n").expect("a line");
    let mut writer = Some(writer);
    let outcome = import.run(move |event| {
        let Event::Progress { commands, .. } = event else { panic!("{event:?}") };
        match commands {
            1..5 => writer.as_mut().expect("open").write_all(b"{\"n\":1}\n").expect("a line"),
            _ => drop(writer.take()),
        }
    });
    outcome.await.expect("an import");
    assert_eq!((import.summary().executed, service.requests().len()), (5, 1));
}

#[tokio::test]
async fn a_service_that_ends_an_idle_request_gets_the_next_line_in_another() {
    use std::{io::Write, thread};

    install_crypto_provider();
    let service = FakeService::start(&[Answer::TimeoutLine; 3]).await;
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let endpoint = Endpoint::new(service.url(), Token::None, ResultForm::Minimal).expect("a URL");
    let input = Input::read(reader, "test", KeyPrefix(Some("pipe".to_owned())), None);
    let mut import = Import::new(endpoint, input, None, POLICY);
    thread::spawn(move || {
        for _ in 0..3 {
            writer.write_all(b"{\"n\":1}\n").expect("a line");
            // Longer than the service waits for a line.
            thread::sleep(Duration::from_millis(300));
        }
    });
    import.run(|_| {}).await.expect("an import");
    assert_eq!((import.summary().executed, import.summary().replayed), (3, 0));
}
