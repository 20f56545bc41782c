//! A bank with an honest client at its counter and a crowd of others before its doors.

use std::{
    env, fs,
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
    socket::{setsockopt, sockopt::RcvBuf},
};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

use crate::{
    client::Client,
    folder::Folder,
    passbook::{Passbook, Running},
};

/// How many come at once; `PASSBOOK_HOSTILE_CONNECTIONS` asks for more.
const CONNECTIONS: usize = 2_000;
/// Descriptors of this process for everything else.
const OTHER_DESCRIPTORS: u64 = 512;
/// How long the service may take to see what it has to do with.
const PATIENCE_S: u64 = 180;
/// What somebody takes who does not read.
const WINDOW_BYTES: usize = 4_096;
/// Connections that are none of the crowd's: to the database, and the honest client's.
const OTHER_CONNECTIONS: usize = 40;

pub struct AbuseHarness {
    bank: Running,
    address: String,
    over: watch::Sender<bool>,
    honest: JoinHandle<(usize, Duration)>,
    _folder: Folder,
}

/// How many come. That this process may have so many descriptors is made sure of.
pub fn connections() -> usize {
    let wanted = env::var("PASSBOOK_HOSTILE_CONNECTIONS").map_or(CONNECTIONS, |text| text.parse().unwrap());
    let needed = wanted as u64 + OTHER_DESCRIPTORS;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard >= needed, "{wanted} connections need {needed} file descriptors, and {hard} are allowed: ulimit -Hn");
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard).unwrap();
    }
    wanted
}

impl AbuseHarness {
    /// A bank with one account, and somebody who keeps using it.
    pub async fn start() -> Self {
        let folder = Folder::migrated();
        let bank = Passbook::in_folder(&folder).set("PASSBOOK_LOG", "warn").start();
        bank.client.wait_until_ready().await;
        bank.client.open_account().await;
        let address = bank.client.base_url().strip_prefix("http://").unwrap().to_owned();
        let (over, is_over) = watch::channel(false);
        let honest = tokio::spawn(run_honest_client(bank.client.clone(), is_over));
        Self { bank, address, over, honest, _folder: folder }
    }

    pub fn client(&self) -> &Client {
        &self.bank.client
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(PATIENCE_S))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(PATIENCE_S))).unwrap();
        stream
    }

    /// Somebody who says this, and perhaps no more.
    pub fn send(&self, what: &str) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(what.as_bytes()).unwrap();
        stream
    }

    /// Somebody who asks and never reads, but waits until there would be something.
    pub fn send_without_reading(&self, request: &str) -> TcpStream {
        let mut stream = self.connect();
        setsockopt(&stream, RcvBuf, &WINDOW_BYTES).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        assert!(stream.peek(&mut [0]).unwrap() > 0);
        stream
    }

    /// Waits until the service has let go of the whole crowd, though nobody of it has left.
    pub async fn connections_released(&self) {
        self.until(|held| held <= OTHER_CONNECTIONS).await;
    }

    async fn until(&self, reached: impl Fn(usize) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(PATIENCE_S);
        while !reached(self.socket_count()) {
            assert!(Instant::now() < deadline, "after {PATIENCE_S} s it holds {} connections", self.socket_count());
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// How many sockets the service has.
    fn socket_count(&self) -> usize {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.bank.process.id())).unwrap();
        let targets = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    }

    /// What the kernel keeps of answers that nobody has read (proc_net(5): the second address is the client's).
    pub fn unread_send_queue_kib(&self) -> u64 {
        let port = self.address.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        let own = format!(":{port:04X}");
        let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
        let rows = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let queues = rows.filter(|row| row[1].ends_with(&own)).map(|row| row[4].split_once(':').unwrap().0.to_owned());
        queues.map(|bytes| u64::from_str_radix(&bytes, 16).unwrap()).sum::<u64>() / 1_024
    }

    /// The most memory that the service has had (proc_pid_status(5)).
    fn peak_memory_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.bank.process.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_024
    }

    /// The honest client was answered all the time, and the service is whole and has had no more memory than that.
    pub async fn finish(self, memory_mib_max: u64) {
        self.over.send_replace(true);
        let memory_mib = self.peak_memory_mib();
        let (answers, slowest) = self.honest.await.unwrap();
        println!("{answers} honest answers, the slowest in {slowest:?}; the service had {memory_mib} MiB at the most");
        assert!(answers > 0);
        assert!(memory_mib <= memory_mib_max, "{memory_mib} MiB, and {memory_mib_max} were to be enough");
        let ended = self.bank.stop(Signal::SIGTERM);
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
}

/// Pays in and looks at the accounts, again and again; how often, and how long the slowest took to be answered.
async fn run_honest_client(client: Client, over: watch::Receiver<bool>) -> (usize, Duration) {
    let (mut answers, mut slowest) = (0, Duration::ZERO);
    while !*over.borrow() {
        let started = Instant::now();
        client.deposit_with_retry(&format!("honest-{answers}")).await;
        let deposit = started.elapsed();
        list_accounts(&client).await;
        slowest = slowest.max(deposit).max(started.elapsed() - deposit);
        answers += 2;
        sleep(Duration::from_millis(20)).await;
    }
    (answers, slowest)
}

/// Who is told that there is too much to do comes again after a second, as `Retry-After` says.
async fn list_accounts(client: &Client) {
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_S);
    loop {
        let accounts = client.get("/v1/accounts").await;
        match accounts.status().as_u16() {
            200 => return,
            503 => assert!(Instant::now() < deadline, "not served for {PATIENCE_S} s"),
            status => panic!("{status}: {}", accounts.text().await.unwrap()),
        }
        sleep(Duration::from_secs(1)).await;
    }
}
