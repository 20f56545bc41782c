//! The transactions view: an account's list of movements, and transfers by id.

use passbook_testkit::{ApiClient, App, Response, spawn_app_in_one_partition};
use serde_json::{Value, json};
use uuid::Uuid;

/// An account with a movement of each kind at versions 1, 2, 5, 6 and 7, and a freeze and unfreeze in between.
struct Fixture {
    app: App,
    client: ApiClient,
    account: Uuid,
    other: Uuid,
    responses: Vec<Response>,
}

async fn fixture() -> Fixture {
    let app = spawn_app_in_one_partition().await;
    let client = app.client();
    let other = client.open_with_balance(50).await;
    let opened = client.open(json!({"currency": "EUR", "initial_deposit": 100})).await.expect(201);
    let account = opened.account_id();
    let body = json!({"amount": 20, "reference": "salary"});
    let deposited = client.command(&format!("/v1/accounts/{account}/deposits"), body).await.expect(201);
    client.freeze(account).await.expect(200);
    client.unfreeze(account).await.expect(200);
    let withdrawn = client.withdraw(account, 5).await.expect(201);
    let received = client.transfer(other, account, 50).await.expect(201);
    let body = json!({"from": account, "to": other, "amount": 7, "reference": "rent"});
    let sent = client.command("/v1/transfers", body).await.expect(201);
    Fixture { app, client, account, other, responses: vec![opened, deposited, withdrawn, received, sent] }
}

impl Fixture {
    async fn list(&self, query: &str) -> Response {
        let position = self.responses.last().unwrap().position();
        self.client.get(&format!("/v1/accounts/{}/transactions?min_position={position}{query}", self.account)).await
    }

    async fn versions(&self, query: &str) -> Vec<i64> {
        let list = self.list(query).await.expect(200);
        list.data().iter().map(|row| row["version"].as_i64().unwrap()).collect()
    }
}

#[tokio::test]
async fn movements_are_listed_newest_first_with_their_balance() {
    let fixture = fixture().await;
    let list = fixture.list("").await.expect(200);
    assert_eq!(list.position(), fixture.responses[4].position());
    assert_eq!(list.body["next"], Value::Null);
    let (received, sent) = (fixture.responses[3].uuid("/transfer_id"), fixture.responses[4].uuid("/transfer_id"));
    let other = fixture.other;
    let rows = [
        (7, "transfer_out", 7, 158, json!(sent), json!(other), json!("rent"), &fixture.responses[4].body["from"]),
        (6, "transfer_in", 50, 165, json!(received), json!(other), Value::Null, &fixture.responses[3].body["to"]),
        (5, "withdrawal", 5, 115, Value::Null, Value::Null, Value::Null, &fixture.responses[2].body),
        (2, "deposit", 20, 120, Value::Null, Value::Null, json!("salary"), &fixture.responses[1].body),
        (1, "opening_deposit", 100, 100, Value::Null, Value::Null, Value::Null, &fixture.responses[0].body),
    ];
    let rows = rows.map(|(version, kind, amount, balance_after, transfer, counterparty, reference, receipt)| {
        json!({
            "version": version, "kind": kind, "amount": amount, "balance_after": balance_after,
            "transfer_id": transfer, "counterparty_account_id": counterparty, "hold_id": null, "reverses_version": null,
            "reversed": 0, "reference": reference, "channel": null, "metadata": {},
            "recorded_at": receipt["events"][0]["recorded_at"], "event_id": receipt["events"][0]["id"],
        })
    });
    assert_eq!(list.data(), rows);
}

#[tokio::test]
async fn pages_contain_each_movement_once() {
    let fixture = fixture().await;
    let first = fixture.list("&limit=2").await.expect(200);
    let second = fixture.list(&format!("&limit=2&after={}", first.text("/next"))).await.expect(200);
    let third = fixture.list(&format!("&limit=2&after={}", second.text("/next"))).await.expect(200);
    let pages = [&first, &second, &third].map(|page| page.data().to_vec());
    assert_eq!(pages.concat(), fixture.list("").await.expect(200).data());
    assert_eq!((third.data().len(), &third.body["next"]), (1, &Value::Null));
    // A full page is the last one if no movement follows.
    assert_eq!(fixture.list("&limit=5").await.expect(200).body["next"], Value::Null);
}

#[tokio::test]
async fn kind_filters_movements() {
    let fixture = fixture().await;
    let kinds = [("opening_deposit", 1), ("deposit", 2), ("withdrawal", 5), ("transfer_in", 6), ("transfer_out", 7)];
    for (kind, version) in kinds {
        assert_eq!(fixture.versions(&format!("&kind={kind}")).await, [version], "{kind}");
    }
    assert_eq!(fixture.versions("&kind=deposit&limit=1").await, [2]);
    fixture.list("&kind=gift").await.expect_problem(400, "invalid_parameter");
}

#[tokio::test]
async fn from_is_inclusive_and_to_is_exclusive() {
    let fixture = fixture().await;
    let list = fixture.list("").await.expect(200);
    let time = |row: usize| list.text(&format!("/data/{row}/recorded_at")).to_owned();
    let (newest, third) = (time(0), time(2));
    assert_eq!(fixture.versions(&format!("&from={third}")).await, [7, 6, 5]);
    assert_eq!(fixture.versions(&format!("&to={third}")).await, [2, 1]);
    assert_eq!(fixture.versions(&format!("&from={third}&to={newest}")).await, [6, 5]);
    assert_eq!(fixture.versions(&format!("&from={newest}&to={newest}")).await, [] as [i64; 0]);
    assert_eq!(fixture.versions(&format!("&from={third}&kind=withdrawal")).await, [5]);
    // A time with more digits than the stored microseconds.
    let after_third = third.replace('Z', "001Z");
    assert_eq!(fixture.versions(&format!("&from={after_third}")).await, [7, 6]);
    assert_eq!(fixture.versions(&format!("&to={after_third}")).await, [5, 2, 1]);
    // The same time in another time zone.
    let local = chrono::DateTime::parse_from_rfc3339(&third).unwrap();
    let local = local.with_timezone(&chrono::FixedOffset::east_opt(7_200).unwrap()).to_rfc3339().replace('+', "%2B");
    assert_eq!(fixture.versions(&format!("&from={local}")).await, [7, 6, 5]);
}

#[tokio::test]
async fn account_without_movements_has_an_empty_list() {
    let app = spawn_app_in_one_partition().await;
    let account = app.client().open_with_balance(0).await;
    let list = app.client().get(&format!("/v1/accounts/{account}/transactions?min_position=1")).await.expect(200);
    assert_eq!((&list.body, list.position()), (&json!({"data": [], "next": null}), "1"));
}

#[tokio::test]
async fn transfer_is_found_by_its_id() {
    let fixture = fixture().await;
    let sent = &fixture.responses[4];
    let location = sent.header("location").unwrap();
    let seen = fixture.client.get(&format!("{location}?min_position={}", sent.position())).await.expect(200);
    let expected = json!({
        "transfer_id": sent.body["transfer_id"], "from": fixture.account, "to": fixture.other, "amount": 7,
        "currency": "EUR", "reference": "rent", "reversed": 0,
        "recorded_at": sent.body["from"]["events"][0]["recorded_at"],
    });
    assert_eq!((&seen.body, seen.position()), (&expected, sent.position()));
    let unknown = format!("/v1/transfers/{}", fixture.account);
    fixture.client.get(&unknown).await.expect_problem(404, "not_found");
    drop(fixture.app);
}
