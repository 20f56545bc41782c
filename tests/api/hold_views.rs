//! Holds, overdrafts, limits and reversals in the views: every moment of a history equals the fold of the domain, and rebuilt views
//! equal the live ones.

use std::collections::BTreeMap;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use passbook_database::Database;
use passbook_domain::{Account, HoldStatus, LimitName, OpenedAccount, limits::LimitUsage};
use passbook_read_model::{
    MoneySum, Progress, QueryRouter, ReadModel,
    accounts::{Filter, LimitView, LimitsView},
    holds::{HoldFilter, HoldView},
};
use passbook_testkit::{App, Rng, audit::audit, eventually, spawn_app_in_one_partition};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::{domain_history::DomainHistory, random_history::format_time};

const COMMANDS: usize = 120;

/// An app whose log has the random history with this seed.
async fn app_with_history(seed: u64) -> (App, DomainHistory) {
    let app = spawn_app_in_one_partition().await;
    let mut history = DomainHistory::new(&app, seed, COMMANDS);
    history.append_to(&app).await;
    (app, history)
}

/// The same database after the service has stopped, so that nothing records the expiry of holds.
async fn app_without_service(seed: u64) -> (App, DomainHistory) {
    let (mut app, history) = app_with_history(seed).await;
    app.stop().await;
    (app, history)
}

/// The queries of a process without a projector.
async fn read_model(app: &App) -> ReadModel {
    let database = Database::open(&app.config().database()).await.unwrap();
    let progress = || Progress { projected: watch::channel(0).1, reader_waiting: Notify::new().into() };
    let router = QueryRouter::new(database.queries(), None, app.partitions());
    ReadModel::new(router, app.partitions(), app.partitions().all().map(|_| progress()).collect())
}

/// The members of an account that holds and limits change.
fn expected_money(account: &OpenedAccount, now: DateTime<Utc>) -> Value {
    json!([account.balance, account.holds.held(now), account.available(now), account.limits.overdraft, account.version])
}

fn money(view: &Value) -> Value {
    json!(["balance", "held", "available", "overdraft", "version"].map(|member| &view[member]))
}

#[tokio::test]
async fn every_moment_of_an_account_equals_the_fold_of_the_domain() {
    for seed in [1, 2] {
        let (mut app, history) = app_with_history(seed).await;
        let client = app.client();
        for moment in &history.moments {
            let account = moment.state.opened().unwrap();
            let path = format!("/v1/accounts/{}?as_of_version={}", moment.account_id, account.version);
            let seen = client.get(&path).await.expect(200);
            assert_eq!(money(&seen.body), expected_money(account, moment.recorded_at), "seed {seed}: {path}");
        }
        let mut rng = Rng::new(seed);
        for _ in 0..100 {
            let moment = rng.pick(&history.moments);
            let later = TimeDelta::seconds(i64::try_from(rng.below(200_000)).unwrap());
            let time = moment.recorded_at + *rng.pick(&[TimeDelta::zero(), TimeDelta::microseconds(1), later]);
            let mut of_account = history.moments.iter().filter(|other| other.account_id == moment.account_id);
            let last = of_account.rfind(|other| other.recorded_at <= time).unwrap();
            let path = format!("/v1/accounts/{}?as_of={}", moment.account_id, format_time(time));
            let seen = client.get(&path).await.expect(200);
            assert_eq!(money(&seen.body), expected_money(last.state.opened().unwrap(), time), "seed {seed}: {path}");
        }
        // Without a service, nothing is recorded during the audit.
        app.stop().await;
        audit(&app).await;
    }
}

#[tokio::test]
async fn accounts_holds_and_limits_of_now_equal_the_fold_of_the_domain() {
    let (app, history) = app_without_service(3).await;
    let read_model = read_model(&app).await;
    let list = read_model.accounts(&Filter::default(), None, 100, None).await.unwrap().value.rows;
    let mut held = 0_i128;
    for (account_id, state) in &history.accounts {
        let (account, now) = (state.opened().unwrap(), Utc::now());
        let seen = read_model.account(*account_id, None).await.unwrap().value.unwrap();
        assert_eq!(money(&json!(seen)), expected_money(account, now));
        assert_eq!(seen.unrecorded_expiries, account.holds.over(now).count());
        assert!(list.contains(&seen), "the list has the same view: {seen:?}");
        assert_eq!(read_model.limits(*account_id, None).await.unwrap().value, Some(limits_at(account, now)));
        assert_holds(&read_model, *account_id, account, now).await;
        held += i128::from(account.holds.held(now));
    }
    let totals = read_model.totals(None).await.unwrap().value;
    assert_eq!(totals.held, [("EUR".to_owned(), MoneySum(held))].into());
}

fn limits_at(account: &OpenedAccount, now: DateTime<Utc>) -> LimitsView {
    let limit = |name| {
        let usage = account.limit_usage(name, now);
        usage.map(|LimitUsage { maximum, used, remaining, resets_at }| LimitView {
            maximum,
            used,
            remaining,
            resets_at,
        })
    };
    let (maximum, below_zero) = (account.limits.overdraft, account.holds.held(now) - account.balance);
    let used = below_zero.max(0);
    let overdraft = LimitView { maximum, used, remaining: (maximum - used).max(0), resets_at: None };
    LimitsView {
        overdraft: (maximum > 0).then_some(overdraft),
        per_movement: limit(LimitName::PerMovement),
        out_per_day: limit(LimitName::OutPerDay),
        out_per_month: limit(LimitName::OutPerMonth),
    }
}

/// Compares the active and the expired holds of an account with its state. All pages of all lists agree.
async fn assert_holds(read_model: &ReadModel, account_id: Uuid, account: &OpenedAccount, now: DateTime<Utc>) {
    let all = list_holds(read_model, account_id, None).await;
    assert!(all.is_sorted_by(|newer, older| newer.version > older.version), "newest first");
    let mut by_status: BTreeMap<&str, Vec<HoldView>> = BTreeMap::new();
    for hold in &all {
        by_status.entry(hold.status.as_str()).or_default().push(hold.clone());
        let single = read_model.hold(account_id, hold.hold_id, None).await.unwrap();
        assert_eq!(single.value.as_ref(), Some(hold));
        assert!(hold.status == HoldStatus::Active || hold.remaining == 0, "{hold:?}");
    }
    for status in [HoldStatus::Active, HoldStatus::Captured, HoldStatus::Voided, HoldStatus::Expired] {
        let listed = list_holds(read_model, account_id, Some(status)).await;
        assert_eq!(listed, by_status.remove(status.as_str()).unwrap_or_default(), "{status:?}");
    }
    let active = all.iter().filter(|hold| hold.status == HoldStatus::Active);
    let mut active: Vec<_> = active.map(|hold| (hold.hold_id, hold.remaining, hold.expires_at)).collect();
    active.reverse();
    let expected = account.holds.active(now).map(|hold| (hold.hold_id, hold.remaining(), hold.expires_at));
    assert_eq!(active, expected.collect::<Vec<_>>());
    let unrecorded: Vec<Uuid> = account.holds.over(now).map(|hold| hold.hold_id).collect();
    let is_expired = |id: &Uuid| all.iter().any(|hold| hold.hold_id == *id && hold.status == HoldStatus::Expired);
    assert!(unrecorded.iter().all(is_expired), "a hold that is over is expired before its expiry is recorded");
}

/// All holds of an account with this status, read in pages of two.
async fn list_holds(read_model: &ReadModel, account_id: Uuid, status: Option<HoldStatus>) -> Vec<HoldView> {
    let (mut holds, mut before) = (vec![], None);
    loop {
        let page = read_model.holds(account_id, HoldFilter { status }, before, 2, None).await.unwrap();
        let (rows, has_more) = page.value;
        before = rows.last().map(|hold| hold.version);
        holds.extend(rows);
        if !has_more {
            return holds;
        }
    }
}

#[tokio::test]
async fn due_holds_are_those_that_are_over_without_a_recorded_expiry() {
    let (app, history) = app_without_service(4).await;
    let read_model = read_model(&app).await;
    let partition = app.partition_under_test();
    let mut seen_due = 0;
    for days_ahead in [0, 30, 400] {
        // The clock of the database decides, or the head of the log if that is later.
        let now = Utc::now().trunc_subsecs(6) + TimeDelta::days(days_ahead);
        app.raise_log_time(now).await;
        let over = |account: &Account| account.opened().unwrap().holds.over(now).map(|hold| hold.expires_at).min();
        let mut expected: Vec<_> =
            history.accounts.iter().filter_map(|(id, account)| Some((over(account)?, *id))).collect();
        expected.sort_unstable();
        let due = read_model.due_holds(partition, 500).await.unwrap();
        assert_eq!(due, expected.iter().map(|(_, id)| *id).collect::<Vec<_>>(), "{now}");
        let first = read_model.due_holds(partition, 1).await.unwrap();
        assert_eq!(first, due.first().copied().into_iter().collect::<Vec<_>>(), "{now}");
        seen_due += due.len();
    }
    assert!(seen_due > 0, "the history has holds that are over");
}

#[tokio::test]
async fn reads_are_never_earlier_than_the_head_of_the_log() {
    let mut app = spawn_app_in_one_partition().await;
    let client = app.client();
    let account = client.open_with_balance(1_000).await;
    client.set_limits(account, json!({"overdraft": 300})).await.expect(200);
    let mut holds = vec![];
    for (amount, expires_in_seconds) in [(900, 1_800), (350, 86_400)] {
        let hold = json!({"amount": amount, "expires_in_seconds": expires_in_seconds});
        holds.push(client.place_hold(account, hold).await.expect(201).uuid("/hold/hold_id"));
    }
    app.wait_until_projected().await;
    app.stop().await;
    // An instance whose clock is ahead has decided a batch. The first hold was over then.
    app.sabotage("UPDATE log_head SET recorded_at = recorded_at + interval '1 hour'").await;
    let read_model = read_model(&app).await;
    let seen = read_model.account(account, None).await.unwrap().value.unwrap();
    assert_eq!((seen.held, seen.available, seen.unrecorded_expiries), (350, 950, 1));
    let of_owner = |owner| Filter { owner: Some(owner), ..Filter::default() };
    let of_currency = Filter { currency: Some("EUR".to_owned()), ..Filter::default() };
    for filter in [Filter::default(), of_owner(seen.owner.clone()), of_currency] {
        assert_eq!(read_model.accounts(&filter, None, 10, None).await.unwrap().value.rows, std::slice::from_ref(&seen));
    }
    let statuses = [HoldStatus::Expired, HoldStatus::Active];
    for (hold_id, status) in holds.iter().zip(statuses) {
        let hold = read_model.hold(account, *hold_id, None).await.unwrap().value.unwrap();
        assert_eq!(hold.status, status);
        assert_eq!(list_holds(&read_model, account, Some(status)).await, [hold]);
    }
    let all = list_holds(&read_model, account, None).await;
    assert_eq!(all.iter().rev().map(|hold| hold.status).collect::<Vec<_>>(), statuses);
    let totals = read_model.totals(None).await.unwrap().value;
    assert_eq!(totals.held, [("EUR".to_owned(), MoneySum(350))].into());
    assert_eq!(read_model.due_holds(app.partition_under_test(), 10).await.unwrap(), [account]);
}

#[tokio::test]
async fn rebuilt_views_equal_the_live_views_and_the_log() {
    let (mut app, _) = app_with_history(5).await;
    let client = app.client();
    for view in ["accounts", "transactions", "daily_balances", "bank_totals", "holds", "ledger_totals"] {
        client.post(&format!("/v1/projections/{view}/rebuild?verify=true"), "").await.expect(202);
        eventually("the rebuilt view", async || {
            let views = client.get("/v1/projections").await.expect(200);
            let is_live = |row: &Value| row["name"] == view && row["generation"] == 2 && row["state"] == "live";
            views.data().iter().any(is_live).then_some(())
        })
        .await;
    }
    app.stop().await;
    audit(&app).await;
}

#[tokio::test]
async fn a_check_finds_every_changed_row_of_holds_and_reversals() {
    let (mut app, _) = app_with_history(6).await;
    let client = app.client();
    for (view, wrong, message) in [
        (
            "holds",
            "UPDATE account_hold SET captured = captured + 1 WHERE status <> 'active' AND captured < amount",
            "holds of account",
        ),
        (
            "holds",
            "UPDATE account_hold SET reference = 'x' WHERE version = (SELECT min(version) FROM account_hold)",
            "holds of account",
        ),
        ("holds", "UPDATE held_total SET held = held + 1", "the total of EUR"),
        ("accounts", "UPDATE account_view SET holds = '[]'", "account_view rows"),
        ("accounts", "UPDATE account_view SET usage = NULL", "account_view rows"),
        ("accounts", "UPDATE account_view SET limits = NULL", "account_view rows"),
        ("transactions", "UPDATE account_transaction SET holds = '[]'", "transactions of account"),
        ("transactions", "UPDATE account_transaction SET holds_version = NULL", "transactions of account"),
        ("transactions", "UPDATE account_transaction SET metadata = NULL", "transactions of account"),
        (
            "transactions",
            "UPDATE reversed_movement SET reversed = reversed - 1 WHERE reversed > 1",
            "transactions of account",
        ),
        ("transactions", "UPDATE reversed_movement SET reversed = 10000000", "more was reversed"),
    ] {
        let sql = format!(
            "BEGIN; LOCK TABLE projection; UPDATE projection SET state = 'building', check_all = true WHERE name = '{view}' AND state = 'live';
             {wrong}; COMMIT"
        );
        app.tamper(&sql).await;
        let failed = eventually("the failed check", async || {
            let views = client.get("/v1/projections").await.expect(200);
            let failed = views.data().iter().find(|row| row["name"] == view && row["state"] == "failed").cloned();
            failed.map(|row| row["failure"].as_str().unwrap_or_default().to_owned())
        })
        .await;
        assert!(failed.contains(message), "{wrong}: {failed}");
        client.post(&format!("/v1/projections/{view}/rebuild?verify=true"), "").await.expect(202);
        app.wait_until_projected().await;
    }
    app.stop().await;
    audit(&app).await;
}
