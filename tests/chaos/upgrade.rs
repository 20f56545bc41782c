//! A rolling upgrade: behind the load balancer one passbook after the other ends and comes back as another release, while
//! both write to one database.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::sleep;

use crate::{books, crowd::Crowd, dice::Dice, settings::Settings, site::Site, support::audit::audit};

/// Longer than the load balancer takes to notice that one is there again.
const BACK_MS: u64 = 5_000;

pub async fn run(settings: Settings) {
    let program = Arc::new(Mutex::new(settings.previous));
    let site = Site::balanced(Arc::clone(&program)).await;
    let mut dice = Dice::new(settings.seed);
    sleep(Duration::from_millis(BACK_MS)).await;
    let crowd = Crowd::at_work(&site, &Arc::default(), 0, &mut dice);
    sleep(Duration::from_millis(BACK_MS)).await;
    *program.lock().unwrap() = None;
    for instance in &site.instances {
        let mut running = instance.hold().await;
        running.stop().await;
        running.start().await;
        sleep(Duration::from_millis(BACK_MS)).await;
    }
    let told = crowd.told().await;
    let lost: Vec<_> = told.iter().filter(|told| told.attempts > 1 || told.was_in_doubt).collect();
    assert!(lost.is_empty(), "of {} requests these were lost: {lost:#?}", told.len());
    println!("{} requests during the upgrade, none lost", told.len());
    books::compare(&told, &audit(&site).await);
    let verified = site.verify().await;
    assert!(verified.status.success(), "passbook verify: {verified:?}");
    site.close().await;
}
