//! Requests without a token: files, pages and the OpenAPI document cost neither work nor memory.

use std::{io::Read, time::Duration};

use super::harness::{AbuseHarness, connections};

/// The service's own memory plus the connections. One copy of the OpenAPI document for each connection would add 400 MiB.
const MEMORY_MIB_MAX: u64 = 300;
/// Requests for the largest file. Compressing it for each of them would take the processor for more than 10 s.
const COMPRESSED_REQUESTS: usize = 150;
const CPU_MAX: Duration = Duration::from_secs(3);
/// Every route that needs no token.
const PATHS: [&str; 13] = [
    "/",
    "/console/main.js",
    "/console/currencies.json",
    "/docs/operations.html",
    "/livez",
    "/nowhere",
    "/openapi.json",
    "/problems/overloaded",
    "/readyz",
    "/swagger-ui",
    "/swagger-ui/",
    "/swagger-ui/swagger-ui-bundle.js",
    "/v1/currencies",
];

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept-encoding: gzip\r\n{headers}\r\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn static_files_cost_neither_work_nor_memory() {
    let harness = AbuseHarness::start().await;
    let bundle = get("/swagger-ui/swagger-ui-bundle.js", "connection: close\r\n");
    let before = harness.cpu_time();
    for _ in 0..COMPRESSED_REQUESTS {
        let mut response = Vec::new();
        harness.send(&bundle).read_to_end(&mut response).unwrap();
        assert!(response.starts_with(b"HTTP/1.1 200 ") && response.len() < 800_000);
    }
    let used = harness.cpu_time() - before;
    println!("{COMPRESSED_REQUESTS} requests used {used:?}");
    assert!(used < CPU_MAX, "{COMPRESSED_REQUESTS} requests used {used:?}");

    let unread: Vec<_> = (0..connections())
        .map(|number| harness.send_without_reading(&get(PATHS[number % PATHS.len()], "").repeat(50)))
        .collect();
    let documents: Vec<_> = (0..connections())
        .map(|_| harness.send_without_reading(&get("/openapi.json", "").replace("gzip", "br")))
        .collect();
    harness.connections_released().await;
    drop((unread, documents));
    harness.finish(MEMORY_MIB_MAX).await;
}
