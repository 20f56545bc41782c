//! Compares what every instance shows of each account with the books, once the testbed is restored and every view is up to date.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, Days, Months, Utc};
use passbook_testkit::http_client;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    books::{Account, Books},
    client::account_id,
    instance::Instance,
};

/// Longer than a query takes on a machine that is busy.
const RESPONSE_S_MAX: u64 = 30;

/// Asserts that every instance shows each account as the books have it: balance, held and available money, and the usage of limits.
/// No hold expires meanwhile.
pub async fn check(instances: &[Arc<Instance>], books: &Books) {
    let http = http_client().timeout(Duration::from_secs(RESPONSE_S_MAX)).build().unwrap();
    for instance in instances {
        let shown = accounts(&http, instance).await;
        let now = Utc::now();
        let expected: BTreeMap<Uuid, Value> = books.accounts.iter().map(|(id, it)| (*id, summary(it, now))).collect();
        assert_eq!(shown, expected, "{} shows other accounts than the log has", instance.name);
        for (id, account) in &books.accounts {
            if account.has_limits() {
                let limits = get(&http, instance, &format!("/v1/accounts/{id}/limits")).await;
                check_limits(account, &limits);
            }
        }
    }
}

/// What an instance shows of each account.
async fn accounts(http: &reqwest::Client, instance: &Instance) -> BTreeMap<Uuid, Value> {
    let (mut accounts, mut after) = (BTreeMap::new(), String::new());
    loop {
        let page = get(http, instance, &format!("/v1/accounts?limit=1000{after}")).await;
        for account in page["data"].as_array().unwrap() {
            let members = ["status", "version", "balance", "held", "overdraft", "available"];
            accounts.insert(account_id(account), json!(members.map(|member| &account[member])));
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return accounts,
        }
    }
}

fn summary(account: &Account, now: DateTime<Utc>) -> Value {
    let (held, available) = (account.held(now), account.available(now));
    json!([account.status, account.version, account.balance, held, account.overdraft(), available])
}

fn check_limits(account: &Account, limits: &Value) {
    for name in ["out_per_day", "out_per_month"] {
        let shown = &limits[name];
        // The period that the response is about: another one may have begun since.
        let period_end: Option<DateTime<Utc>> = shown["resets_at"].as_str().map(|time| time.parse().unwrap());
        let in_period = period_end.map_or_else(Utc::now, |end| match name {
            "out_per_day" => end - Days::new(1),
            _ => end - Months::new(1),
        });
        let usage = account.limit_usage(name, in_period);
        let expected = usage.map(|(maximum, used)| json!([maximum, used, (maximum - used).max(0)]));
        let found = shown.is_object().then(|| json!(["maximum", "used", "remaining"].map(|member| &shown[member])));
        assert_eq!(found, expected, "{name} of {account:?}: {limits}");
    }
}

async fn get(http: &reqwest::Client, instance: &Instance, path: &str) -> Value {
    let response = http.get(format!("{}{path}", instance.base_url())).send().await.unwrap();
    let (status, body) = (response.status(), response.text().await.unwrap());
    assert_eq!(status, 200, "{} responds to {path}: {body}", instance.name);
    serde_json::from_str(&body).unwrap()
}
