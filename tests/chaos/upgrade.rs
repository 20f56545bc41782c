//! A rolling upgrade: one instance after the other restarts as another release behind the load balancer, while the other
//! instances write to the same database.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use passbook_testkit::{Rng, audit::audit_database};
use tokio::time::sleep;

use crate::{books::Books, invariants, settings::Settings, testbed::Testbed, workload::Workload};

/// Longer than the load balancer takes to notice that an instance is back.
const RETURN_MS: u64 = 5_000;

pub async fn run(settings: Settings) {
    let program = Arc::new(Mutex::new(settings.previous));
    let testbed = Testbed::behind_balancer(Arc::clone(&program)).await;
    let mut rng = Rng::new(settings.seed);
    sleep(Duration::from_millis(RETURN_MS)).await;
    let workload = Workload::start(&testbed, &Arc::default(), 0, &mut rng);
    sleep(Duration::from_millis(RETURN_MS)).await;
    *program.lock().unwrap() = None;
    for instance in &testbed.instances {
        let mut running = instance.lock().await;
        running.stop().await;
        running.start().await;
        sleep(Duration::from_millis(RETURN_MS)).await;
    }
    let records = workload.finish().await;
    let lost: Vec<_> = records.iter().filter(|record| record.attempts > 1 || record.had_unknown_attempt).collect();
    assert!(lost.is_empty(), "{} of {} requests were lost: {lost:#?}", lost.len(), records.len());
    println!("{} requests during the upgrade, none lost", records.len());
    testbed.wait_for_expiries().await;
    let log = audit_database(&mut testbed.database().await).await;
    invariants::check(&records, &log, &Books::from_log(&log.events));
    let verified = testbed.verify().await;
    assert!(verified.status.success(), "passbook verify: {verified:?}");
    testbed.shut_down().await;
}
