//! Beyond the connection limit, or the share of an address, new connections get 503 at once, and existing ones are still served.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use passbook_testkit::{connect_from, folder::Folder, process::Passbook};

/// The limit of file descriptors. The service uses half of them for connections.
const DESCRIPTORS: &str = "300";
const CONNECTIONS: u8 = 150;
/// One address gets as many connections as stay free.
const CONNECTIONS_OF_ONE_ADDRESS: u8 = CONNECTIONS / 2;

fn request(mut stream: &TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut response = Vec::new();
    let mut chunk = [0; 2048];
    while !String::from_utf8_lossy(&response).contains('}') {
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "the connection closed after {:?}", String::from_utf8_lossy(&response));
        response.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8(response).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_beyond_the_limit_gets_503_and_others_are_served() {
    let folder = Folder::migrated();
    let service = Passbook::in_folder(&folder).with_descriptor_limit(DESCRIPTORS).start();
    let address = service.client.base_url().strip_prefix("http://").unwrap().to_owned();
    let connect = |host: u8| connect_from(Ipv4Addr::new(127, 0, 0, host), &address);
    let assert_overloaded = |stream: TcpStream| {
        let response = request(&stream).to_lowercase();
        let has_problem = response.contains("retry-after: 1") && response.contains("\"overloaded\"");
        assert!(response.starts_with("http/1.1 503") && has_problem, "{response}");
    };
    let of_one: Vec<TcpStream> = (0..CONNECTIONS_OF_ONE_ADDRESS).map(|_| connect(1)).collect();
    assert!(request(&of_one[0]).starts_with("HTTP/1.1 200"));
    assert_overloaded(connect(1));
    assert!(request(&connect(2)).starts_with("HTTP/1.1 200"));
    drop(of_one);
    service.client.wait_until_ready().await;

    // From here on each connection has another address. An address without a connection gets one while another stays free.
    let open: Vec<TcpStream> = (1..CONNECTIONS).map(connect).collect();
    assert!(request(&open[0]).starts_with("HTTP/1.1 200"));
    assert_overloaded(connect(CONNECTIONS));
    assert!(request(&open[0]).starts_with("HTTP/1.1 200"));

    drop(open);
    service.client.wait_until_ready().await;
    service.client.open_account().await;
}
