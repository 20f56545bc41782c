//! The kinds of fault, and how each one is injected: it begins, lasts for some time, and ends.

use std::time::Duration;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use passbook_testkit::{
    Rng, eventually,
    fault_proxy::{Fault as MessageFault, FaultProxy, FaultRule, RequestMatch, Write},
};
use tokio::{
    task::block_in_place,
    time::{Instant, sleep},
};

use crate::{instance::InstanceGuard, postgres::FrozenProcess, testbed::Testbed};

/// How long a fault rule waits for a matching write before another proxy is tried.
const MATCH_MS_MAX: u64 = 1_500;
/// The same for a write that occurs rarely.
const RARE_MATCH_MS_MAX: u64 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL to an instance, followed by a restart.
    KillPassbook,
    /// Graceful shutdown of an instance, followed by a restart.
    RestartPassbook,
    /// SIGKILL to an instance and to its embedded Postgres at once.
    KillBoth,
    /// SIGKILL to the postmaster.
    KillPostmaster,
    /// SIGKILL to one Postgres backend, which makes Postgres restart all of them.
    KillBackend,
    /// `pg_terminate_backend` for one Postgres backend.
    TerminateBackend,
    /// SIGQUIT to the postmaster, as `pg_ctl stop -m immediate` sends it.
    StopPostgres,
    /// An instance is suspended for a while.
    FreezePassbook,
    /// One Postgres backend is suspended for a while.
    FreezeBackend,
    /// All connections between an instance and the database are closed.
    CutNetwork,
    /// No data flows between an instance and the database for a while.
    StallNetwork,
    /// Postgres executes a write, and the connection closes before the response.
    LoseResponse,
    /// Postgres executes a write, and its connection delivers nothing any more, not even its end.
    BlackHole,
    /// A write reaches Postgres after its sender has timed out.
    LateWrite,
    /// The same, but the write arrives after its sender has raised the fence, and the database has become unavailable
    /// again. By then callers have received the response that nothing was done.
    LateWriteAfterFence,
    /// A further instance joins and is killed.
    TransientInstance,
    /// The clock of one instance is set back.
    SetClockBack,
    /// The disk with the Postgres data is full for a while.
    FillDisk,
}

use Fault::*;

pub const SHARED_DATABASE_FAULTS: &[Fault] = &[
    KillPassbook,
    KillPostmaster,
    KillBackend,
    TerminateBackend,
    StopPostgres,
    FreezePassbook,
    FreezeBackend,
    CutNetwork,
    StallNetwork,
    LoseResponse,
    BlackHole,
    LateWrite,
    LateWriteAfterFence,
    TransientInstance,
    SetClockBack,
];
pub const BALANCED_FAULTS: &[Fault] =
    &[KillPassbook, KillPassbook, RestartPassbook, FreezePassbook, KillPostmaster, KillBackend, FreezeBackend];
pub const EMBEDDED_DATABASE_FAULTS: &[Fault] = &[
    KillPassbook,
    KillBoth,
    KillPostmaster,
    KillBackend,
    TerminateBackend,
    StopPostgres,
    FreezePassbook,
    FreezeBackend,
];
pub const DISK_FAULTS: &[Fault] = &[FillDisk, KillBoth];

impl Fault {
    /// Whether the fault affects a single write. Such a fault needs commands in flight.
    pub fn is_message_fault(self) -> bool {
        matches!(self, LoseResponse | BlackHole | LateWrite | LateWriteAfterFence)
    }

    /// Whether the fault ends or suspends a process of Postgres.
    pub fn needs_server_process(self) -> bool {
        matches!(self, KillBoth | KillPostmaster | KillBackend | StopPostgres | FreezeBackend)
    }
}

/// The writes that commit.
const DURABLE: &[Write] = &[Write::AppendAlone, Write::Commit];

/// Injects a fault. Returns false if it found no target, for example because Postgres is down.
pub async fn inject(fault: Fault, testbed: &Testbed, rng: &mut Rng, freeze: Duration) -> bool {
    match fault {
        KillPassbook => kill_passbook(testbed, rng, false).await,
        RestartPassbook => {
            let mut instance = rng.pick(&testbed.instances).lock().await;
            instance.stop().await;
            instance.start().await;
            true
        }
        KillBoth => kill_passbook(testbed, rng, true).await,
        KillPostmaster => signal(testbed.postgres.postmaster(), Signal::SIGKILL),
        StopPostgres => signal(testbed.postgres.postmaster(), Signal::SIGQUIT),
        TerminateBackend => testbed.postgres.terminate_backend(random_application(rng)).await,
        KillBackend => signal(backend(testbed, rng).await, Signal::SIGKILL),
        FreezePassbook => {
            let instance = rng.pick(&testbed.instances).lock().await;
            keep_frozen(instance.freeze(), freeze).await
        }
        FreezeBackend => keep_frozen(backend(testbed, rng).await.and_then(FrozenProcess::new), freeze).await,
        CutNetwork => {
            let proxy = rng.pick(&testbed.proxies);
            proxy.disconnect();
            sleep(rng.millis(0, 2_500)).await;
            proxy.restore();
            true
        }
        StallNetwork => {
            let proxy = rng.pick(&testbed.proxies);
            proxy.freeze();
            sleep(rng.millis(200, 4_000)).await;
            if rng.chance(50) {
                proxy.disconnect();
            }
            proxy.restore();
            true
        }
        LoseResponse => inject_message_fault(testbed, rng, MessageFault::CloseBeforeResponse).await,
        BlackHole => inject_message_fault(testbed, rng, MessageFault::NeverRespond).await,
        LateWrite => {
            let delay = rng.millis(0, 2_000);
            inject_message_fault(testbed, rng, MessageFault::Delay(delay)).await
        }
        LateWriteAfterFence => late_write_after_fence(testbed, rng).await,
        TransientInstance => {
            let Some(transient) = &testbed.transient else { return false };
            let mut running = transient.lock().await;
            running.start().await;
            transient.set_target(true);
            sleep(rng.millis(1_000, 4_000)).await;
            running.kill().await;
            transient.set_target(false);
            true
        }
        SetClockBack => {
            let Some(clock) = &testbed.clock else { return false };
            clock.set(2);
            sleep(Duration::from_millis(1_200)).await;
            clock.set(-rng.pick::<i64>(&[1, 30, 3_600, 86_400]));
            sleep(Duration::from_millis(1_200)).await;
            true
        }
        FillDisk => {
            let Some(disk) = &testbed.disk else { return false };
            let full = block_in_place(|| disk.fill());
            sleep(freeze).await;
            drop(full);
            true
        }
    }
}

async fn kill_passbook(testbed: &Testbed, rng: &mut Rng, with_postgres: bool) -> bool {
    let mut instance: InstanceGuard<'_> = rng.pick(&testbed.instances).lock().await;
    if !instance.is_running() {
        return false;
    }
    if with_postgres {
        signal(testbed.postgres.postmaster(), Signal::SIGKILL);
    }
    instance.kill().await;
    if testbed.has_embedded_postgres() && rng.chance(50) {
        // The embedded Postgres must exit by itself, even if no instance starts again.
        eventually("the exit of the orphaned Postgres", async || testbed.folder.processes().is_empty().then_some(()))
            .await;
    }
    sleep(rng.millis(0, 1_000)).await;
    instance.start().await;
    true
}

/// A random Postgres backend that serves an instance.
async fn backend(testbed: &Testbed, rng: &mut Rng) -> Option<Pid> {
    testbed.postgres.backend(random_application(rng)).await
}

/// The `application_name` of a random use of the database, most often a write.
fn random_application(rng: &mut Rng) -> &'static str {
    let applications =
        ["passbook writer", "passbook projector", "passbook writer", "passbook projector", "passbook queries"];
    let picked: &&str = rng.pick(&applications);
    picked
}

/// Injects `LateWriteAfterFence` while only one instance runs. No other instance then moves the log head, so only the
/// fence prevents the late write.
async fn late_write_after_fence(testbed: &Testbed, rng: &mut Rng) -> bool {
    let _guard = testbed.message_fault_lock.lock().await;
    let target = rng.below(testbed.proxies.len() as u64) as usize;
    let mut frozen = Vec::new();
    for (number, instance) in testbed.instances.iter().enumerate() {
        // The lock prevents other faults from starting or stopping the instance meanwhile.
        let guard = instance.lock().await;
        frozen.push((if number == target { None } else { guard.freeze() }, guard));
    }
    let proxy = &testbed.proxies[target];
    let rule = |writes, fault| FaultRule { request: RequestMatch::Writes(writes), fault };
    // After a while without conflicts, the remaining instance appends without an explicit transaction.
    let delayed_append = rule(&[Write::AppendAlone], MessageFault::Delay(Duration::from_millis(3_300)));
    // The sender then resolves the unknown outcome: it checks whether the append committed, and raises the fence.
    let stalled_fence = rule(&[Write::Commit], MessageFault::FreezeAfterResponse);
    let happened = wait_for_match(proxy, "passbook writer", delayed_append, RARE_MATCH_MS_MAX).await
        && wait_for_match(proxy, "passbook writer", stalled_fence, RARE_MATCH_MS_MAX).await;
    if happened {
        sleep(Duration::from_millis(4_200)).await;
    }
    proxy.restore();
    drop(frozen);
    happened
}

/// Sets a fault rule. Returns whether a write matched it within `timeout_ms`.
async fn wait_for_match(proxy: &FaultProxy, application: &'static str, rule: FaultRule, timeout_ms: u64) -> bool {
    proxy.set_rule(application, rule);
    let deadline = Instant::now() + Duration::from_millis(timeout_ms);
    while proxy.is_rule_pending() && Instant::now() < deadline {
        sleep(Duration::from_millis(10)).await;
    }
    let has_matched = !proxy.is_rule_pending();
    proxy.clear_rule();
    has_matched
}

fn signal(process: Option<Pid>, signal: Signal) -> bool {
    process.is_some_and(|process| kill(process, signal).is_ok())
}

async fn keep_frozen(frozen: Option<FrozenProcess>, freeze: Duration) -> bool {
    match frozen {
        Some(frozen) => {
            sleep(freeze).await;
            drop(frozen);
            true
        }
        None => false,
    }
}

/// Injects a fault into one write. Returns false if no write matched a rule.
async fn inject_message_fault(testbed: &Testbed, rng: &mut Rng, fault: MessageFault) -> bool {
    let _guard = testbed.message_fault_lock.lock().await;
    let application = *rng.pick(&["passbook writer", "passbook writer", "passbook writer", "passbook projector"]);
    let writes = *rng.pick(&[DURABLE, DURABLE, &[Write::Append]]);
    let rules = [
        (application, FaultRule { request: RequestMatch::Writes(writes), fault }),
        ("passbook writer", FaultRule { request: RequestMatch::Writes(DURABLE), fault }),
    ];
    let first = rng.below(2);
    for (application, rule) in rules {
        for offset in 0..testbed.proxies.len() as u64 {
            let proxy = &testbed.proxies[((first + offset) % testbed.proxies.len() as u64) as usize];
            if wait_for_match(proxy, application, rule, MATCH_MS_MAX).await {
                // The consequences last as long as the statement timeout.
                sleep(Duration::from_millis(3_000)).await;
                return true;
            }
        }
    }
    false
}
