//! Beyond its bounds it says so at once, and serves the others.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::{folder::Folder, passbook::Passbook};

/// Half of so few file descriptors are for connections.
const DESCRIPTORS: &str = "300";
const CONNECTIONS: usize = 150;

fn ask(mut stream: &TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 2048];
    while !String::from_utf8_lossy(&answer).contains('}') {
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "hung up after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_too_many_is_told_so_at_once_and_those_before_it_go_on() {
    let folder = Folder::migrated();
    let bank = Passbook::in_folder(&folder).with_descriptor_limit(DESCRIPTORS).start();
    let address = bank.client.base_url().strip_prefix("http://").unwrap().to_owned();
    let connect = || TcpStream::connect(&address).unwrap();
    let held: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect()).collect();
    assert!(ask(&held[0]).starts_with("HTTP/1.1 200"));

    let told = ask(&connect()).to_lowercase();
    assert!(
        told.starts_with("http/1.1 503") && told.contains("retry-after: 1") && told.contains("\"overloaded\""),
        "{told}"
    );
    assert!(ask(&held[0]).starts_with("HTTP/1.1 200"));

    drop(held);
    bank.client.wait_until_ready().await;
    bank.client.open_account().await;
}
