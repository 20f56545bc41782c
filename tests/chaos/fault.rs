//! The faults, each carried out once: it begins, lasts, and is over.

use std::time::Duration;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    task::block_in_place,
    time::{Instant, sleep},
};

use crate::{
    dice::Dice,
    eventually,
    instance::Hold,
    postgres::Frozen,
    proxy::{Proxy, Theft, Trap},
    site::Site,
    wire::Write,
};

/// A trap that nobody steps into for so long is laid elsewhere.
const TRAP_MS_MAX: u64 = 1_500;
/// The same where somebody comes by only after a while.
const RARE_TRAP_MS_MAX: u64 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// kill -9 of passbook, and a new start.
    KillPassbook,
    /// An end in order of passbook, and a new start.
    RestartPassbook,
    /// kill -9 of passbook and of its Postgres at once.
    KillBoth,
    /// kill -9 of Postgres's postmaster.
    KillPostmaster,
    /// kill -9 of one server process, which makes Postgres restart.
    KillBackend,
    /// What `pg_terminate_backend` does to one server process.
    EndBackend,
    /// What `pg_ctl stop -m immediate` does.
    StopPostgres,
    /// Passbook stands still for a while.
    FreezePassbook,
    /// One server process stands still for a while.
    FreezeBackend,
    /// All connections to the database end.
    CutNetwork,
    /// Nothing moves between passbook and the database.
    StallNetwork,
    /// A write is carried out, and the connection ends before the answer.
    LoseAnswer,
    /// A write is carried out, and its connection never says another word.
    BlackHole,
    /// A write arrives after its sender has given up.
    LateWrite,
    /// The same, after its sender has found out that it did not arrive and the database has gone away once more: callers
    /// have been told that nothing was done.
    LateWriteAfterAll,
    /// Another passbook joins and dies.
    Guest,
    /// The clock of one passbook is set back.
    SetClockBack,
    /// There is no room left where Postgres keeps its data.
    FillDisk,
}

use Fault::*;

pub const OF_A_SHARED_DATABASE: &[Fault] = &[
    KillPassbook,
    KillPostmaster,
    KillBackend,
    EndBackend,
    StopPostgres,
    FreezePassbook,
    FreezeBackend,
    CutNetwork,
    StallNetwork,
    LoseAnswer,
    BlackHole,
    LateWrite,
    LateWriteAfterAll,
    Guest,
    SetClockBack,
];
pub const OF_BALANCED_BANKS: &[Fault] =
    &[KillPassbook, KillPassbook, RestartPassbook, FreezePassbook, KillPostmaster, KillBackend, FreezeBackend];
pub const OF_AN_OWN_DATABASE: &[Fault] =
    &[KillPassbook, KillBoth, KillPostmaster, KillBackend, EndBackend, StopPostgres, FreezePassbook, FreezeBackend];
pub const OF_A_DISK: &[Fault] = &[FillDisk, KillBoth];

impl Fault {
    /// Whether it happens to a command under way, and to nothing else.
    pub fn is_theft(self) -> bool {
        matches!(self, LoseAnswer | BlackHole | LateWrite | LateWriteAfterAll)
    }
}

/// What makes something durable.
const DURABLE: &[Write] = &[Write::AppendAlone, Write::Commit];

/// Carries a fault out. False: it found nothing to happen to.
pub async fn inject(fault: Fault, site: &Site, dice: &mut Dice, freeze: Duration) -> bool {
    match fault {
        KillPassbook => kill_passbook(site, dice, false).await,
        RestartPassbook => {
            let mut instance = dice.pick(&site.instances).hold().await;
            instance.stop().await;
            instance.start().await;
            true
        }
        KillBoth => kill_passbook(site, dice, true).await,
        KillPostmaster => signal(site.postgres.postmaster(), Signal::SIGKILL),
        StopPostgres => signal(site.postgres.postmaster(), Signal::SIGQUIT),
        EndBackend => signal(backend(site, dice).await, Signal::SIGTERM),
        KillBackend => signal(backend(site, dice).await, Signal::SIGKILL),
        FreezePassbook => {
            let instance = dice.pick(&site.instances).hold().await;
            lasting(instance.freeze(), freeze).await
        }
        FreezeBackend => lasting(backend(site, dice).await.and_then(Frozen::new), freeze).await,
        CutNetwork => {
            let proxy = dice.pick(&site.proxies);
            proxy.cut();
            sleep(dice.millis(0, 2_500)).await;
            proxy.mend();
            true
        }
        StallNetwork => {
            let proxy = dice.pick(&site.proxies);
            proxy.stand_still();
            sleep(dice.millis(200, 4_000)).await;
            if dice.chance(50) {
                proxy.cut();
            }
            proxy.mend();
            true
        }
        LoseAnswer => steal(site, dice, Theft::CutBeforeAnswer).await,
        BlackHole => steal(site, dice, Theft::SilentForEver).await,
        LateWrite => {
            let delay = dice.millis(0, 2_000);
            steal(site, dice, Theft::Late(delay)).await
        }
        LateWriteAfterAll => late_after_all(site, dice).await,
        Guest => {
            let Some(guest) = &site.guest else { return false };
            let mut running = guest.hold().await;
            running.start().await;
            guest.expect(true);
            sleep(dice.millis(1_000, 4_000)).await;
            running.kill().await;
            guest.expect(false);
            true
        }
        SetClockBack => {
            let Some(clock) = &site.clock else { return false };
            clock.set(2);
            sleep(Duration::from_millis(1_200)).await;
            clock.set(-dice.pick::<i64>(&[1, 30, 3_600, 86_400]));
            sleep(Duration::from_millis(1_200)).await;
            true
        }
        FillDisk => {
            let Some(disk) = &site.disk else { return false };
            let full = block_in_place(|| disk.fill());
            sleep(freeze).await;
            drop(full);
            true
        }
    }
}

async fn kill_passbook(site: &Site, dice: &mut Dice, with_postgres: bool) -> bool {
    let mut instance: Hold<'_> = dice.pick(&site.instances).hold().await;
    if !instance.is_running() {
        return false;
    }
    if with_postgres {
        signal(site.postgres.postmaster(), Signal::SIGKILL);
    }
    instance.kill().await;
    if site.has_own_postgres() && dice.chance(50) {
        // Its Postgres ends by itself, also while nobody starts another.
        eventually("the end of an orphan", async || site.folder.processes().is_empty().then_some(())).await;
    }
    sleep(dice.millis(0, 1_000)).await;
    instance.start().await;
    true
}

/// One of the server processes that passbook talks to.
async fn backend(site: &Site, dice: &mut Dice) -> Option<Pid> {
    let of = *dice.pick(&[
        "passbook writer",
        "passbook projector",
        "passbook writer",
        "passbook projector",
        "passbook queries",
    ]);
    site.postgres.backend(of).await
}

/// One passbook alone, so that nobody else moves the head and only the fence stands between the late write and the log.
async fn late_after_all(site: &Site, dice: &mut Dice) -> bool {
    let _turn = site.theft.lock().await;
    let one = dice.below(site.proxies.len() as u64) as usize;
    let mut frozen = Vec::new();
    for (other, instance) in site.instances.iter().enumerate() {
        // Held, so that nobody starts or ends it meanwhile.
        let hold = instance.hold().await;
        frozen.push((if other == one { None } else { hold.freeze() }, hold));
    }
    let proxy = &site.proxies[one];
    let trap = |writes, theft| Trap { who: "passbook writer", writes, theft };
    // One that is alone takes a moment to notice it, and then appends without a transaction around it.
    let happened = is_sprung(proxy, trap(&[Write::AppendAlone], Theft::Late(Duration::from_millis(3_300))), RARE_TRAP_MS_MAX).await
        // What the sender does next is to look whether it arrived, and to see to it that it never will.
        && is_sprung(proxy, trap(&[Write::Commit], Theft::StandStillAfter), RARE_TRAP_MS_MAX).await;
    if happened {
        sleep(Duration::from_millis(4_200)).await;
    }
    proxy.mend();
    drop(frozen);
    happened
}

/// Lays a trap and waits whether somebody steps into it.
async fn is_sprung(proxy: &Proxy, trap: Trap, patience_ms: u64) -> bool {
    proxy.set_trap(Some(trap));
    let deadline = Instant::now() + Duration::from_millis(patience_ms);
    while proxy.is_trap_set() && Instant::now() < deadline {
        sleep(Duration::from_millis(10)).await;
    }
    let is_sprung = !proxy.is_trap_set();
    proxy.set_trap(None);
    is_sprung
}

fn signal(process: Option<Pid>, signal: Signal) -> bool {
    process.is_some_and(|process| kill(process, signal).is_ok())
}

async fn lasting(frozen: Option<Frozen>, freeze: Duration) -> bool {
    match frozen {
        Some(frozen) => {
            sleep(freeze).await;
            drop(frozen);
            true
        }
        None => false,
    }
}

/// Lays a trap for one write, and waits until somebody has stepped into it.
async fn steal(site: &Site, dice: &mut Dice, theft: Theft) -> bool {
    let _turn = site.theft.lock().await;
    let who = *dice.pick(&["passbook writer", "passbook writer", "passbook writer", "passbook projector"]);
    let writes = *dice.pick(&[DURABLE, DURABLE, &[Write::Append]]);
    let wishes = [Trap { who, writes, theft }, Trap { who: "passbook writer", writes: DURABLE, theft }];
    let first = dice.below(2);
    for trap in wishes {
        for turn in 0..site.proxies.len() as u64 {
            let proxy = &site.proxies[((first + turn) % site.proxies.len() as u64) as usize];
            if is_sprung(proxy, trap, TRAP_MS_MAX).await {
                // What comes of it takes as long as a statement may take.
                sleep(Duration::from_millis(3_000)).await;
                return true;
            }
        }
    }
    false
}
