//! Persistent connections: a rejected request does not end one without notice, and an idle one stays open for the configured time.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    thread::sleep,
    time::Duration,
};

use passbook_testkit::{App, spawn_app, spawn_app_with, spawn_auth_app};

use crate::http_framing::OPENING;

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
/// A client that sends headers and body in two packets.
const BETWEEN_PACKETS: Duration = Duration::from_millis(100);

fn connect(app: &App) -> TcpStream {
    let stream = TcpStream::connect(app.url().replace("http://", "")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Reads one response with a `Content-Length`.
fn read_response(stream: &mut TcpStream) -> Option<String> {
    let (mut response, mut byte) = (Vec::new(), [0]);
    while !response.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        response.push(byte[0]);
    }
    let head = String::from_utf8(response).unwrap().to_lowercase();
    let length =
        head.split("content-length: ").nth(1).map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8_lossy(&body))
}

/// Sends a request whose body follows in a second packet. Asserts the status, and that the connection serves the next request
/// unless the response announced its end. Returns whether it serves the next request.
fn send_in_two_packets(app: &App, head: &str, body: &str, status: u16) -> bool {
    let mut stream = connect(app);
    stream.write_all(format!("{head}\r\nhost: localhost\r\n\r\n").as_bytes()).unwrap();
    sleep(BETWEEN_PACKETS);
    // The service may have closed the connection of a body that is too large.
    let _ = stream.write_all(body.as_bytes());
    let response = read_response(&mut stream).unwrap_or_else(|| panic!("{head}: no response"));
    assert!(response.starts_with(&format!("http/1.1 {status} ")), "{head}: {response}");
    let announced = response.contains("\r\nconnection: close\r\n");
    let next = stream.write_all(LIVEZ.as_bytes()).ok().and_then(|()| read_response(&mut stream));
    assert_eq!(next.is_none(), announced, "{head}: {response}");
    assert!(next.is_none_or(|next| next.starts_with("http/1.1 200 ")), "{head}");
    !announced
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_request_never_ends_its_connection_without_notice() {
    let (app, limited, auth) = (
        spawn_app().await,
        spawn_app_with(&["--rate-limit-per-second=1", "--rate-limit-burst=1"]).await,
        spawn_auth_app().await,
    );
    let account = app.client().open_with_balance(0).await;
    let json = format!("content-type: application/json\r\ncontent-length: {}", OPENING.len());
    let post = |path: &str, headers: &str| format!("POST {path} HTTP/1.1\r\n{json}{headers}");
    let long_key = format!("\r\nidempotency-key: {}", "x".repeat(256));
    let cases = [
        (&auth.app, post("/v1/accounts", ""), 401),
        (&auth.app, post("/metrics", "\r\nauthorization: Bearer nonsense"), 405),
        (&app, post("/v1/accounts", &long_key), 400),
        (&app, post("/v1/accounts?limit=1", ""), 400),
        (&app, post("/v1/accounts", "\r\nif-match: 7"), 400),
        (&app, post("/v1/accounts/nonsense/deposits", ""), 400),
        (&app, post("/v1/projections/%ff/rebuild", ""), 400),
        (&app, post("/v1/accounts", "\r\nsec-fetch-site: cross-site"), 403),
        (&app, post("/v1/accounts", "\r\nx-forwarded-for: 192.0.2.1"), 403),
        (&app, post("/v1/nothing", ""), 404),
        (&app, post(&format!("/v1/accounts/{account}"), ""), 405),
        (&app, format!("PUT /v1/accounts HTTP/1.1\r\n{json}"), 405),
        (&app, format!("GET /livez HTTP/1.1\r\n{json}"), 200),
        (&app, format!("GET /v1/accounts?limit=0 HTTP/1.1\r\n{json}"), 400),
    ];
    tokio::task::block_in_place(|| {
        for (app, head, status) in &cases {
            assert!(send_in_two_packets(app, head, OPENING, *status), "{head}");
        }
        assert!(send_in_two_packets(&limited, LIVEZ.split("\r\n").next().unwrap(), "", 200));
        let chunked = "POST /v1/nothing HTTP/1.1\r\ntransfer-encoding: chunked";
        assert!(send_in_two_packets(&app, chunked, "2\r\n{}\r\n0\r\n\r\n", 404));
        assert!(!send_in_two_packets(&app, chunked, "nonsense\r\n", 404), "the end of the body is unknown");
        let incomplete = "POST /v1/nothing HTTP/1.1\r\ncontent-length: 100";
        assert!(!send_in_two_packets(&app, incomplete, "{}", 404), "the rest of the body does not arrive");
        let huge = "POST /v1/accounts HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 10000000";
        assert!(!send_in_two_packets(&app, huge, "", 413));
        let large = format!("{} ", OPENING).repeat(8_000);
        let too_large = huge.replace("10000000", &large.len().to_string());
        assert!(send_in_two_packets(&app, &too_large, &large, 413), "a body that is a little too large");
        let waiting =
            format!("{}\r\nexpect: 100-continue", huge.replace("10000000", "2").replace("accounts", "nothing"));
        assert!(!send_in_two_packets(&app, &waiting, "", 404), "a client that waits with its body");
        let ambiguous = format!("POST /v1/accounts HTTP/1.1\r\n{json}\r\nhost: another");
        assert!(!send_in_two_packets(&app, &ambiguous, OPENING, 400));
        // A request beyond the rate limit.
        let mut spent = connect(&limited);
        spent.write_all(b"GET /v1/projections HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        read_response(&mut spent).unwrap();
        assert!(send_in_two_packets(&limited, &post("/v1/accounts", ""), OPENING, 429));
    });
}

/// Waits until the service closes the connection, at most 10 s.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    match stream.read(&mut [0]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connection_is_served_until_its_timeout() {
    let app = spawn_app().await;
    let short = spawn_app_with(&["--idle-timeout-ms=1000"]).await;
    tokio::task::block_in_place(|| {
        let mut idle = connect(&app);
        let mut slow = connect(&app);
        for stream in [&mut idle, &mut slow] {
            stream.write_all(LIVEZ.as_bytes()).unwrap();
            read_response(stream).unwrap();
        }
        let mut timed_out = connect(&short);
        timed_out.write_all(LIVEZ.as_bytes()).unwrap();
        read_response(&mut timed_out).unwrap();
        assert!(is_closed(&mut timed_out));
        // The default outlives the pause between two requests of common clients, but slow headers do not.
        slow.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
        sleep(Duration::from_secs(12));
        assert!(is_closed(&mut slow), "incomplete headers");
        idle.write_all(LIVEZ.as_bytes()).unwrap();
        assert!(read_response(&mut idle).is_some_and(|response| response.starts_with("http/1.1 200 ")));
    });
}
