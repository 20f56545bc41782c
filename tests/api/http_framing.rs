//! Requests sent as raw bytes: body limits, incomplete bodies, invalid HTTP and ambiguous framing. None of them affects
//! other connections.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use passbook_testkit::{App, spawn_app};

const BODY_BYTES_MAX: usize = 64 * 1024;
/// The body of a request to open an account.
pub const OPENING: &str = r#"{"currency": "EUR"}"#;

/// Sends these bytes and reads the response up to the end of the connection.
async fn exchange(app: &App, bytes: impl Into<Vec<u8>>) -> String {
    send_raw(app, bytes.into(), |_| {}).await
}

/// Like [`exchange`], but closes the sending side after these bytes.
async fn exchange_half_closed(app: &App, bytes: impl Into<Vec<u8>>) -> String {
    send_raw(app, bytes.into(), |stream| drop(stream.shutdown(Shutdown::Write))).await
}

async fn send_raw(app: &App, bytes: Vec<u8>, end: fn(&TcpStream)) -> String {
    let address = app.url().replace("http://", "");
    let exchange = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // The server may close the connection before it has read everything.
        if stream.write_all(&bytes).is_ok() {
            end(&stream);
        }
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response);
        String::from_utf8_lossy(&response).into_owned()
    };
    tokio::task::spawn_blocking(exchange).await.unwrap()
}

/// A request to open an account with these headers and this body.
fn opening(headers: &str, body: &str) -> String {
    format!(
        "POST /v1/accounts HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n{headers}\r\n\r\n{body}"
    )
}

/// The body in chunked coding, without the last chunk.
fn chunked(body: &str) -> String {
    let chunks = body.as_bytes().chunks(8_192).map(|chunk| {
        let chunk = std::str::from_utf8(chunk).unwrap();
        format!("{:x}\r\n{chunk}\r\n", chunk.len())
    });
    chunks.collect()
}

#[track_caller]
fn assert_problem(response: &str, status: u16, code: &str) {
    assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    assert!(response.contains("\r\ncontent-type: application/problem+json\r\n"), "{response}");
    assert!(response.contains(&format!("\"code\":\"{code}\"")), "{response}");
}

/// Two requests to open an account with a body of this size: one with `Content-Length`, one in chunks.
fn openings_of(bytes: usize) -> [String; 2] {
    let body = format!("{OPENING}{}", " ".repeat(bytes - OPENING.len()));
    let in_chunks = format!("{}0\r\n\r\n", chunked(&body));
    [opening(&format!("content-length: {bytes}"), &body), opening("transfer-encoding: chunked", &in_chunks)]
}

#[tokio::test]
async fn body_above_the_size_limit_gives_413() {
    let app = spawn_app().await;
    for at_limit in openings_of(BODY_BYTES_MAX) {
        let response = exchange(&app, at_limit).await;
        assert!(response.starts_with("HTTP/1.1 201 "), "{response}");
    }
    let before = app.log().await;
    for too_large in openings_of(BODY_BYTES_MAX + 1) {
        assert_problem(&exchange(&app, too_large).await, 413, "payload_too_large");
    }
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn too_large_content_length_is_refused_before_the_body() {
    let app = spawn_app().await;
    let announced = opening("content-length: 10000000000\r\nexpect: 100-continue", "");
    assert_problem(&exchange(&app, announced).await, 413, "payload_too_large");
}

#[tokio::test]
async fn incomplete_body_records_nothing() {
    let app = spawn_app().await;
    let before = app.log().await;
    // The part that arrives is valid JSON by itself.
    let one_byte_more = format!("content-length: {}", OPENING.len() + 1);
    exchange_half_closed(&app, opening(&one_byte_more, OPENING)).await;
    exchange_half_closed(&app, opening(&one_byte_more, "")).await;
    exchange_half_closed(&app, opening("transfer-encoding: chunked", &chunked(OPENING))).await;
    exchange_half_closed(&app, opening("transfer-encoding: chunked", &format!("{}nonsense", chunked(OPENING)))).await;
    assert_eq!(app.log().await, before);
    app.client().open_with_balance(0).await;
}

#[tokio::test]
async fn invalid_http_is_refused_and_other_requests_are_served() {
    let app = spawn_app().await;
    let before = app.log().await;
    let with_header =
        |header: &str| format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n{header}\r\nconnection: close\r\n\r\n");
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let cases = [
        ("nonsense\r\n\r\n".to_owned(), "400"),
        ("GET\r\n\r\n".to_owned(), "400"),
        ("GET /livez HTTP/9.9\r\n\r\n".to_owned(), "400"),
        ("GET /li vez HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("\u{16}\u{3}\u{1}\u{2}".to_owned(), "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), ""),
        (with_header("no colon"), "400"),
        (with_header("x-a: \u{0}"), "400"),
        (opening("content-length: -1", ""), "400"),
        (opening("content-length: 1\r\ncontent-length: 2", "{}"), "400"),
        (opening("transfer-encoding: gzip", ""), "400"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000)), "414"),
        (with_header(&many), "431"),
        (with_header(&format!("x-long: {}", "a".repeat(2_000_000))), "431"),
    ];
    for (request, status) in cases {
        let response = exchange(&app, request.as_bytes()).await;
        let start = &request[..request.len().min(80)];
        assert_eq!(response.split(' ').nth(1).unwrap_or_default(), status, "{start:?}: {response}");
        // The response has no body, so it reveals no internals.
        assert!(response.is_empty() || response.ends_with("\r\n\r\n"), "{start:?}: {response}");
        app.client().get("/livez").await.expect(200);
    }
    assert_eq!(app.log().await, before);
}

#[tokio::test]
async fn ambiguous_framing_cannot_smuggle_a_second_request() {
    let app = spawn_app().await;
    let hidden = "GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let body = format!("{}0\r\n\r\n", chunked(OPENING));
    let post = |headers: &str, body: &str| {
        format!(
            "POST /v1/accounts HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}\r\n\r\n{body}{hidden}"
        )
    };
    let length = |length: &str| post(&format!("content-length: {length}"), OPENING);
    let coding = |coding: &str| post(&format!("transfer-encoding: {coding}"), &body);
    let chunks = |body: &str| post("transfer-encoding: chunked", body);
    let refused = [
        length("19, 19"),
        length("+19"),
        length("0x13"),
        length("18446744073709551635"),
        length("19\r\ncontent-length: 20"),
        post("content-length : 19", OPENING),
        coding("chunked, identity"),
        coding("gzip, chunked"),
        coding("chunked, chunked"),
        coding("chunked\r\ntransfer-encoding: chunked"),
        coding("chunked\r\ntransfer-encoding: identity"),
        coding("\u{b}chunked"),
        coding("\r\n chunked"),
        post("transfer-encoding : chunked", &body),
        post("x: a\r\n transfer-encoding: chunked", OPENING),
        post("x: a\rtransfer-encoding: chunked", OPENING),
        post("transfer-encoding: chunked", &body).replace("HTTP/1.1\r\nhost", "HTTP/1.0\r\nhost"),
        chunks(&body.replace("13\r\n", "13\n")),
        chunks(&body.replace("13\r\n", "0x13\r\n")),
        chunks(&body.replace("13\r\n", "-13\r\n")),
        chunks(&body.replace("13\r\n", "10000000000000013\r\n")),
        chunks(&body.replace("13\r\n", "13;a\nb\r\n")),
        chunks(&body.replace("13\r\n", &format!("13;{}\r\n", "a".repeat(20_000)))),
        chunks(&body.replace("\r\n0", "xx0")),
        chunks(&body.replace("0\r\n\r\n", &format!("0\r\n{}\r\n", "a: b\r\n".repeat(20_000)))),
    ];
    let before = app.log().await;
    for request in refused {
        let response = exchange(&app, request.clone()).await;
        let start = &request[90..request.len().min(200)];
        assert!(response.starts_with("HTTP/1.1 400 "), "{start:?}: {response}");
        assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{start:?}: {response}");
    }
    assert_eq!(app.log().await, before);
    // Chunked coding takes precedence, and the connection closes after it (RFC 9112, section 6.1).
    for both in ["content-length: 4\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 4"] {
        let response = exchange(&app, post(both, &body)).await;
        assert!(response.starts_with("HTTP/1.1 201 ") && response.matches("HTTP/1.1 ").count() == 1, "{response}");
    }
    // The body of a GET request is skipped and not read as a second request.
    let with_body = format!(
        "GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{hidden}",
        hidden.len()
    );
    let response = exchange(&app, with_body).await;
    assert!(response.starts_with("HTTP/1.1 200 ") && response.matches("HTTP/1.1 ").count() == 1, "{response}");
}

#[tokio::test]
async fn unusual_but_valid_http_is_answered() {
    let app = spawn_app().await;
    let cases = [
        ("OPTIONS * HTTP/1.1", "404"),
        ("CONNECT bank:80 HTTP/1.1", "404"),
        ("TRACE /livez HTTP/1.1", "405"),
        ("GET http://elsewhere/livez HTTP/1.1", "200"),
        ("GET /livez HTTP/1.0", "200"),
    ];
    for (line, status) in cases {
        let response = exchange(&app, format!("{line}\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(response.split(' ').nth(1), Some(status), "{line}: {response}");
    }
    let long = app.client().with_header("x-long", &"a".repeat(20_000)).get("/livez").await;
    assert_eq!(long.expect(200).body["status"], "ok");
}

#[tokio::test]
async fn request_needs_exactly_one_host_header() {
    let app = spawn_app().await;
    for hosts in ["", "host: a\r\nhost: b\r\n"] {
        let response = exchange(&app, format!("GET /livez HTTP/1.1\r\n{hosts}connection: close\r\n\r\n")).await;
        assert_problem(&response, 400, "malformed_request");
    }
}

#[tokio::test]
async fn half_closed_connection_gets_its_response() {
    let app = spawn_app().await;
    let length = format!("content-length: {}", OPENING.len());
    let response = exchange_half_closed(&app, opening(&length, OPENING)).await;
    assert!(response.starts_with("HTTP/1.1 201"), "{response}");
    assert_eq!(app.log().await.head.position, 1);
}
