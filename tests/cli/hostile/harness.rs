//! The harness of the abuse tests: a service, an honest client that uses it all the time, and functions for abusive
//! connections.

use std::{
    env, fs,
    io::Write,
    net::{Ipv4Addr, TcpStream},
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
    socket::{setsockopt, sockopt::RcvBuf},
};
use passbook_testkit::{
    connect_from,
    folder::Folder,
    process::{Passbook, Running},
    service_client::Client,
};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

/// The number of abusive connections. `PASSBOOK_HOSTILE_CONNECTIONS` overrides it.
const CONNECTIONS: usize = 2_000;
/// File descriptors that this process needs for everything else.
const OTHER_DESCRIPTORS: u64 = 512;
/// Shorter than the default, so that the tests do not wait for it.
const IDLE_TIMEOUT_MS: &str = "10000";
/// How long the service may take to close abusive connections, and to answer the honest client.
const RELEASE_S_MAX: u64 = 180;
/// The receive buffer of a client that does not read.
const RECEIVE_BUFFER_BYTES: usize = 4_096;
/// An upper bound for the service's other sockets: to the database and to the honest client.
const OTHER_CONNECTIONS: usize = 40;

/// A service with an honest client that uses it during the whole test.
pub struct AbuseHarness {
    service: Running,
    address: String,
    is_over: watch::Sender<bool>,
    honest_client: JoinHandle<(usize, Duration)>,
    _folder: Folder,
}

/// The number of abusive connections. Raises the limit of file descriptors of this process if needed.
pub fn connections() -> usize {
    let wanted = env::var("PASSBOOK_HOSTILE_CONNECTIONS").map_or(CONNECTIONS, |text| text.parse().unwrap());
    let needed = wanted as u64 + OTHER_DESCRIPTORS;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(
        hard >= needed,
        "{wanted} connections need {needed} file descriptors, but the hard limit (ulimit -Hn) is {hard}"
    );
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard).unwrap();
    }
    wanted
}

impl AbuseHarness {
    /// Starts a service with one account, and the honest client.
    pub async fn start() -> Self {
        Self::start_with(|service| service).await
    }

    /// Like [`start`](Self::start), with further settings.
    pub async fn start_with(settings: impl FnOnce(Passbook) -> Passbook) -> Self {
        let folder = Folder::migrated();
        let service = settings(Passbook::in_folder(&folder)).set("PASSBOOK_LOG", "warn");
        let service = service.set("PASSBOOK_IDLE_TIMEOUT_MS", IDLE_TIMEOUT_MS).start();
        service.client.wait_until_ready().await;
        service.client.open_account().await;
        let address = service.client.base_url().strip_prefix("http://").unwrap().to_owned();
        let (is_over, over) = watch::channel(false);
        let honest_client = tokio::spawn(run_honest_client(service.client.clone(), over));
        Self { service, address, is_over, honest_client, _folder: folder }
    }

    pub fn client(&self) -> &Client {
        &self.service.client
    }

    pub fn connect(&self) -> TcpStream {
        self.connect_from(Ipv4Addr::LOCALHOST)
    }

    /// Connects from a local address.
    pub fn connect_from(&self, source: Ipv4Addr) -> TcpStream {
        let stream = connect_from(source, &self.address);
        stream.set_read_timeout(Some(Duration::from_secs(RELEASE_S_MAX))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(RELEASE_S_MAX))).unwrap();
        stream
    }

    /// Opens a connection and sends these bytes.
    pub fn send(&self, bytes: &str) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(bytes.as_bytes()).unwrap();
        stream
    }

    /// Opens a connection, sends a request, and waits until a response arrives, but does not read it.
    pub fn send_without_reading(&self, request: &str) -> TcpStream {
        Self::leave_unread(self.connect(), request)
    }

    /// Sends a request on this connection, and waits until a response arrives, but does not read it.
    pub fn leave_unread(mut stream: TcpStream, request: &str) -> TcpStream {
        setsockopt(&stream, RcvBuf, &RECEIVE_BUFFER_BYTES).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        assert!(stream.peek(&mut [0]).unwrap() > 0);
        stream
    }

    /// Waits until the service has closed all abusive connections, which the clients keep open.
    pub async fn connections_released(&self) {
        let deadline = Instant::now() + Duration::from_secs(RELEASE_S_MAX);
        while self.socket_count() > OTHER_CONNECTIONS {
            let open = self.socket_count();
            assert!(Instant::now() < deadline, "{open} connections are still open after {RELEASE_S_MAX} s");
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// The number of sockets of the service.
    fn socket_count(&self) -> usize {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.service.process.id())).unwrap();
        let targets = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    }

    /// The kernel's send queues of the service, with responses that no client has read. In `/proc/net/tcp` (proc_net(5))
    /// the first address is the service's own.
    pub fn unread_send_queue_kib(&self) -> u64 {
        let port = self.address.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        let own = format!(":{port:04X}");
        let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
        let rows = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let queues = rows.filter(|row| row[1].ends_with(&own)).map(|row| row[4].split_once(':').unwrap().0.to_owned());
        queues.map(|bytes| u64::from_str_radix(&bytes, 16).unwrap()).sum::<u64>() / 1_024
    }

    /// The processor time that the service has used (proc_pid_stat(5)).
    pub fn cpu_time(&self) -> Duration {
        /// The unit of the kernel is fixed for programs (`USER_HZ`).
        const TICKS_PER_S: u64 = 100;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.service.process.id())).unwrap();
        // The name of the program, in parentheses, is the second field.
        let after_name = stat.rsplit_once(") ").unwrap().1;
        let ticks: u64 = after_name.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1_000 / TICKS_PER_S)
    }

    /// The peak memory of the service (proc_pid_status(5)).
    fn peak_memory_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.service.process.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_024
    }

    /// Stops the honest client and the service. Asserts that the honest client was served, that the peak memory is within
    /// the limit, and that the service exits without a panic.
    pub async fn finish(self, memory_mib_max: u64) {
        self.is_over.send_replace(true);
        let memory_mib = self.peak_memory_mib();
        let (responses, slowest) = self.honest_client.await.unwrap();
        println!(
            "{responses} responses to the honest client, the slowest in {slowest:?}; peak memory {memory_mib} MiB"
        );
        assert!(responses > 0);
        assert!(memory_mib <= memory_mib_max, "peak memory is {memory_mib} MiB, the limit is {memory_mib_max} MiB");
        let ended = self.service.stop(Signal::SIGTERM);
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
}

/// Deposits and lists the accounts in a loop. Returns the number of responses and the slowest response time.
async fn run_honest_client(client: Client, is_over: watch::Receiver<bool>) -> (usize, Duration) {
    let (mut responses, mut slowest) = (0, Duration::ZERO);
    while !*is_over.borrow() {
        let started = Instant::now();
        client.deposit_with_retry(&format!("honest-{responses}")).await;
        let deposit = started.elapsed();
        list_accounts(&client).await;
        slowest = slowest.max(deposit).max(started.elapsed() - deposit);
        responses += 2;
        sleep(Duration::from_millis(20)).await;
    }
    (responses, slowest)
}

/// Lists the accounts. After a 503 it retries in one second, as `Retry-After` requires.
async fn list_accounts(client: &Client) {
    let deadline = Instant::now() + Duration::from_secs(RELEASE_S_MAX);
    loop {
        let accounts = client.get("/v1/accounts").await;
        match accounts.status().as_u16() {
            200 => return,
            503 => assert!(Instant::now() < deadline, "not served for {RELEASE_S_MAX} s"),
            status => panic!("{status}: {}", accounts.text().await.unwrap()),
        }
        sleep(Duration::from_secs(1)).await;
    }
}
