//! Ports for programs that do not choose one by themselves.

use std::{
    net::TcpListener,
    ops::Range,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Below the ports that systems give to connections and to listeners without a port, which is from 32 768 on in Linux. Another test
/// would get such a port before the program listens.
const PORTS: Range<u16> = 20_000..32_000;
/// The distance between the first ports of two processes with successive ids.
const PROCESS_STEP: u32 = 131;

/// A port of 127.0.0.1 on which nothing listens. This process gets it once.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let first = process::id().wrapping_mul(PROCESS_STEP);
    let count = u32::from(PORTS.end - PORTS.start);
    (0..count)
        .map(|_| first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % count)
        .map(|number| PORTS.start + u16::try_from(number).unwrap())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port is free")
}
