//! The moment at which a hold is over, to the microsecond. A batch gets the time of its instance's clock or, if that is behind the
//! log, the microsecond after the log's last one. So a test that raises the time of the log chooses that of the next batch.

use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use passbook_audit::verification;
use passbook_testkit::{ApiClient, App, Response, audit::audit, eventually, spawn_app};
use serde_json::{Value, json};
use uuid::Uuid;

const HOLD_S: i64 = 60;
/// How often a command is tried at a moment.
const ATTEMPTS_MAX: usize = 5;

/// Two instances, and an account that receives what others send.
struct Fixture {
    app: App,
    _peer: App,
    clients: [ApiClient; 2],
    receiver: Uuid,
}

/// The account on which a hold is placed.
struct Account {
    balance: i64,
    limits: Value,
}

/// Who sends a command.
#[derive(Clone, Copy)]
enum Sender {
    /// A client of this instance.
    Instance(usize),
    /// A client of the first instance, under [`Held::key`].
    Keyed,
}

/// An account with a hold of 1 000 minor units.
struct Held {
    account: Uuid,
    hold: Uuid,
    expires_at: DateTime<Utc>,
}

impl Fixture {
    /// The log is at noon of the next day, so that no midnight on the clock of this machine passes during the test.
    async fn spawn() -> Self {
        let app = spawn_app().await;
        let peer = app.spawn_peer().await;
        let clients = [app.client(), peer.client()];
        let tomorrow = Utc::now().date_naive() + Days::new(1);
        app.raise_log_time(tomorrow.and_time(NaiveTime::from_hms_opt(12, 0, 0).unwrap()).and_utc()).await;
        let receiver = clients[0].open_with_balance(0).await;
        Self { app, _peer: peer, clients, receiver }
    }

    async fn account_with_hold(&self, balance: i64, limits: Value) -> Held {
        let client = &self.clients[0];
        let account = client.open_with_balance(balance).await;
        client.set_limits(account, limits).await.expect(200);
        let body = json!({"amount": 1_000, "expires_in_seconds": HOLD_S});
        let placed = client.place_hold(account, body).await.expect(201);
        let (placed_at, expires_at) = (time(&placed, "/hold/placed_at"), time(&placed, "/hold/expires_at"));
        assert_eq!(expires_at, placed_at + TimeDelta::seconds(HOLD_S));
        Held { account, hold: placed.uuid("/hold/hold_id"), expires_at }
    }

    /// Sends a command on a new hold in a batch whose time is `offset_us` after the end of the hold, first as a dry run. A batch
    /// that the database of a busy machine did not answer in time is repeated at a later time: then another hold is tried.
    async fn send_at(&self, offset_us: i64, account: &Account, command: Sent, sender: Sender) -> (Held, Response) {
        for attempt in 1.. {
            let held = self.account_with_hold(account.balance, account.limits.clone()).await;
            let at = held.expires_at + TimeDelta::microseconds(offset_us);
            let client = match sender {
                Sender::Instance(instance) => self.clients[instance].clone(),
                Sender::Keyed => self.clients[0].with_key(&held.key()),
            };
            self.app.raise_log_time(at - TimeDelta::microseconds(1)).await;
            let dry = command.send(&client.dry_run(), &held, self.receiver).await;
            let response = command.send(&client, &held, self.receiver).await;
            let head = self.head_time(held.account).await;
            if head > at && attempt < ATTEMPTS_MAX {
                continue;
            }
            assert!(head <= at, "{command:?} at {offset_us}: the time of the log is {head} after {}", response.body);
            let case = format!("{command:?} at {offset_us}: {} {}", dry.body, response.body);
            assert_eq!(dry.status / 100, response.status / 100, "{case}");
            assert_eq!(dry.body["available"], response.body["available"], "{case}");
            if let Some(time) = recorded_at(&response) {
                assert_eq!(time, at, "{case}");
            }
            return (held, response);
        }
        unreachable!("the last attempt returns or panics")
    }

    /// The time of the last batch in the account's partition.
    async fn head_time(&self, account: Uuid) -> DateTime<Utc> {
        let home = self.app.partitions().partition_of(account);
        self.app.log().await.heads.iter().find(|head| head.partition == home).unwrap().recorded_at
    }

    async fn verify(&self) {
        audit(&self.app).await;
        verification::verify(&self.app.auditor().await, self.app.partitions(), &[], |_, _| ()).await.unwrap();
    }
}

impl Held {
    /// A key that is used for no other hold.
    fn key(&self) -> String {
        format!("hold-{}", self.hold)
    }
}

/// A command whose outcome depends on the hold.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Capture,
    PartOfCapture,
    CaptureToReceiver,
    Void,
    Withdraw,
    Transfer,
    Place,
    Reverse,
    Close,
}

impl Sent {
    /// The commands that use the hold, which is over, or its money, which is available again.
    const USES_OF_HOLD: [Self; 4] = [Self::Capture, Self::PartOfCapture, Self::CaptureToReceiver, Self::Void];
    const USES_OF_MONEY: [Self; 4] = [Self::Withdraw, Self::Transfer, Self::Place, Self::Reverse];

    async fn send(self, client: &ApiClient, held: &Held, receiver: Uuid) -> Response {
        let Held { account, hold, .. } = *held;
        match self {
            Self::Capture => client.capture_hold(account, hold, json!({})).await,
            Self::PartOfCapture => client.capture_hold(account, hold, json!({"amount": 400, "final": false})).await,
            Self::CaptureToReceiver => client.capture_hold(account, hold, json!({"to": receiver})).await,
            Self::Void => client.void_hold(account, hold).await,
            Self::Withdraw => client.withdraw(account, 1_000).await,
            Self::Transfer => client.transfer(account, receiver, 1_000).await,
            Self::Place => client.place_hold(account, json!({"amount": 1_000})).await,
            Self::Reverse => client.reverse(account, 1, json!({})).await,
            Self::Close => client.close(account).await,
        }
    }

    /// The balance and what is available after the command.
    fn money_after(self) -> [i64; 2] {
        match self {
            Self::PartOfCapture => [600, 0],
            Self::Void => [1_000, 1_000],
            Self::Place => [1_000, 0],
            Self::Capture | Self::CaptureToReceiver | Self::Withdraw | Self::Transfer | Self::Reverse | Self::Close => {
                [0, 0]
            }
        }
    }
}

fn time(response: &Response, pointer: &str) -> DateTime<Utc> {
    response.text(pointer).parse().unwrap()
}

/// The time of the last event in a receipt; `None` in a refusal.
fn recorded_at(response: &Response) -> Option<DateTime<Utc>> {
    let receipt = if response.body["from"].is_object() { &response.body["from"] } else { &response.body };
    receipt["events"].as_array()?.last()?["recorded_at"].as_str().map(|time| time.parse().unwrap())
}

/// The balance and what is available, in the receipt of the sender or in a refusal.
fn money(response: &Response) -> [i64; 2] {
    let receipt = if response.body["from"].is_object() { &response.body["from"] } else { &response.body };
    ["balance", "available"].map(|member| receipt[member].as_i64().unwrap_or_else(|| panic!("{member} of {receipt}")))
}

#[tokio::test]
async fn hold_is_used_up_to_the_last_microsecond_before_its_end() {
    let fixture = Fixture::spawn().await;
    for command in Sent::USES_OF_HOLD {
        for (n, offset_us) in [-1, 0, 1, -1, 0, 1].into_iter().enumerate() {
            let account = Account { balance: 1_000, limits: json!({}) };
            let (held, response) = fixture.send_at(offset_us, &account, command, Sender::Instance(n / 3)).await;
            match offset_us {
                ..0 => assert_eq!(money(&response), command.money_after(), "{command:?}: {}", response.body),
                0.. => {
                    response.expect_problem(422, "hold_not_active");
                    let decided = fixture.clients[0].dry_run().withdraw(held.account, 1_000).await.expect(200);
                    assert_eq!(money(&decided), [0, 0], "the money is available");
                }
            }
        }
    }
    fixture.verify().await;
}

#[tokio::test]
async fn money_is_available_from_the_microsecond_of_the_end() {
    let fixture = Fixture::spawn().await;
    for command in Sent::USES_OF_MONEY {
        for (n, offset_us) in [-1, 0, 1, -1, 0, 1].into_iter().enumerate() {
            let account = Account { balance: 1_000, limits: json!({}) };
            let (_, response) = fixture.send_at(offset_us, &account, command, Sender::Instance(n / 3)).await;
            let expected = match offset_us {
                ..0 => {
                    assert_eq!(response.body["code"], "insufficient_funds", "{command:?}: {}", response.body);
                    [1_000, 0]
                }
                0.. => command.money_after(),
            };
            assert_eq!(money(&response), expected, "{command:?} at {offset_us}");
        }
    }
    fixture.verify().await;
}

#[tokio::test]
async fn limit_is_given_back_at_the_microsecond_of_the_end() {
    let fixture = Fixture::spawn().await;
    let account = Account { balance: 2_000, limits: json!({"out_per_day": 1_000, "out_per_month": 1_000}) };
    for (n, offset_us) in [-1, 0, 1, -1, 0, 1].into_iter().enumerate() {
        let (_, response) = fixture.send_at(offset_us, &account, Sent::Withdraw, Sender::Instance(n / 3)).await;
        match offset_us {
            ..0 => assert_eq!(response.expect_problem(422, "limit_exceeded").body["used"], 1_000),
            0.. => assert_eq!(money(&response), [1_000, 1_000], "{}", response.body),
        }
    }
    fixture.verify().await;
}

#[tokio::test]
async fn account_closes_at_the_microsecond_at_which_its_hold_ends() {
    let fixture = Fixture::spawn().await;
    let account = Account { balance: 0, limits: json!({"overdraft": 1_000}) };
    for (n, offset_us) in [-1, 0, 1, -1, 0, 1].into_iter().enumerate() {
        let (_, response) = fixture.send_at(offset_us, &account, Sent::Close, Sender::Instance(n / 3)).await;
        match offset_us {
            ..0 => drop(response.expect_problem(422, "holds_active")),
            0.. => assert_eq!((&response.body["status"], money(&response)), (&json!("closed"), [0, 1_000])),
        }
    }
    fixture.verify().await;
}

/// A refusal under a key is recorded, so it moves the time of the log, and its outcome stays.
#[tokio::test]
async fn keyed_outcome_is_that_of_its_microsecond() {
    let fixture = Fixture::spawn().await;
    for (command, refused_at) in [(Sent::Capture, 0..2), (Sent::CaptureToReceiver, 0..2), (Sent::Withdraw, -1..0)] {
        for offset_us in -1..2 {
            let account = Account { balance: 1_000, limits: json!({}) };
            let (held, response) = fixture.send_at(offset_us, &account, command, Sender::Keyed).await;
            assert_eq!(response.status >= 400, refused_at.contains(&offset_us), "{}", response.body);
            let at = held.expires_at + TimeDelta::microseconds(offset_us);
            assert_eq!(fixture.head_time(held.account).await, at, "{command:?} at {offset_us}");
            let other = fixture.clients[1].with_key(&held.key());
            let again = command.send(&other, &held, fixture.receiver).await;
            assert_eq!((again.is_replay(), again.status), (true, response.status));
        }
    }
    fixture.verify().await;
}

/// Every view names its own moment, which is at least that of the account's last event.
#[tokio::test]
async fn view_counts_no_hold_that_is_over_on_the_clock_of_the_log() {
    let fixture = Fixture::spawn().await;
    let client = &fixture.clients[0];
    for offset_us in -1..2 {
        let held = fixture.account_with_hold(1_000, json!({})).await;
        let at = held.expires_at + TimeDelta::microseconds(offset_us);
        fixture.app.raise_log_time(at - TimeDelta::microseconds(1)).await;
        let deposited = client.deposit(held.account, 1).await.expect(201);
        assert_eq!(recorded_at(&deposited), Some(at));
        let expected = if offset_us < 0 { [1_001, 1_000, 1] } else { [1_001, 0, 1_001] };
        let view = client.get_account(held.account, deposited.position()).await.expect(200).body;
        assert_eq!(["balance", "held", "available"].map(|member| view[member].as_i64().unwrap()), expected);
        let version = deposited.body["version"].as_i64().unwrap();
        let path = format!("/v1/accounts/{}?as_of_version={version}", held.account);
        let then =
            eventually("a final view", async || Some(client.get(&path).await).filter(|view| view.status == 200)).await;
        assert_eq!(["balance", "held", "available"].map(|member| then.body[member].as_i64().unwrap()), expected);
    }
    fixture.verify().await;
}
