//! Races for the same money over two instances, and over partitions if the log has several. Each race is repeated. After each
//! repetition the balances are compared with those that follow from the winners, and the log and its views are checked.

use std::env;

use chrono::{Days, NaiveTime, Utc};
use futures_util::future::{BoxFuture, FutureExt, join_all};
use passbook_audit::verification;
use passbook_testkit::{ApiClient, App, Response, audit::audit, spawn_app};
use serde_json::{Value, json};
use uuid::Uuid;

/// How often each race is repeated, unless `PASSBOOK_RACE_ROUNDS` sets it.
const ROUNDS: usize = 4;

/// Two instances on one database.
struct Race {
    app: App,
    _peer: App,
    clients: [ApiClient; 2],
}

impl Race {
    async fn spawn() -> Self {
        let app = spawn_app().await;
        let peer = app.spawn_peer().await;
        let clients = [app.client(), peer.client()];
        Self { app, _peer: peer, clients }
    }

    fn rounds() -> impl Iterator<Item = usize> {
        0..env::var("PASSBOOK_RACE_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap())
    }

    /// The client of one instance or the other, with an idempotency key of its own.
    fn keyed(&self, round: usize, n: usize) -> ApiClient {
        self.clients[(round + n) % 2].with_key(&format!("{round}-{n}"))
    }

    /// Opens an account in this partition, or in one of fewer partitions.
    async fn open(&self, partition: usize, balance: i64) -> Uuid {
        let partitions = self.app.partitions();
        let id = partitions.new_id_in(i16::try_from(partition).unwrap() % partitions.count());
        let body = json!({"currency": "EUR", "account_id": id, "initial_deposit": balance});
        self.clients[partition % 2].open(body).await.expect(201).account_id()
    }

    async fn place_hold(&self, account: Uuid, amount: i64) -> Uuid {
        self.clients[0].place_hold(account, json!({"amount": amount})).await.expect(201).uuid("/hold/hold_id")
    }

    /// Sends commands through both instances at once. Each is the `n`-th of its round.
    async fn run<'a>(
        &self,
        round: usize,
        count: usize,
        send: impl Fn(ApiClient, usize) -> BoxFuture<'a, Response>,
    ) -> Outcomes {
        let responses = join_all((0..count).map(|n| send(self.keyed(round, n), n))).await;
        Outcomes(responses)
    }

    /// Asserts balance, held and available money: by the view, and as both instances decide the next command.
    async fn expect_money(&self, account: Uuid, expected: [i64; 3]) {
        let [balance, held, available] = expected;
        for client in &self.clients {
            let decided = client.dry_run().deposit(account, 1).await.expect(200);
            let money = ["balance", "available"].map(|member| decided.body[member].as_i64().unwrap() - 1);
            assert_eq!(money, [balance, available], "balance and available of the next decision");
            let view = client.get_account(account, decided.position()).await.expect(200).body;
            let money = ["balance", "held", "available"].map(|member| view[member].as_i64().unwrap());
            assert_eq!(money, [balance, held, available], "balance, held and available of {view}");
        }
    }

    /// Checks the log, the views, the receipts, and that no accepted debit or hold left less than nothing.
    async fn verify(&self) {
        audit(&self.app).await;
        verification::verify(&self.app.auditor().await, self.app.partitions(), &[], |_, _| ()).await.unwrap();
    }
}

/// The responses to the commands of one repetition.
struct Outcomes(Vec<Response>);

impl Outcomes {
    /// Which commands were accepted. Asserts that the others were refused with one of these codes.
    #[track_caller]
    fn accepted(&self, codes: &[&str]) -> Vec<usize> {
        let is_accepted = |response: &Response| match response.status {
            200 | 201 => true,
            422 if codes.contains(&response.body["code"].as_str().unwrap()) => false,
            _ => panic!("{} {}", response.status, response.body),
        };
        self.0.iter().enumerate().filter(|(_, response)| is_accepted(response)).map(|(n, _)| n).collect()
    }

    /// Asserts that a command has the same outcome at the other instance.
    #[track_caller]
    fn expect_replay(&self, n: usize, again: &Response) {
        assert_eq!((again.is_replay(), again.status), (true, self.0[n].status), "{}", again.body);
    }
}

fn count(accepted: &[usize], is_counted: impl Fn(usize) -> bool) -> i64 {
    i64::try_from(accepted.iter().filter(|n| is_counted(**n)).count()).unwrap()
}

#[tokio::test]
async fn one_of_64_captures_takes_the_money_of_a_hold() {
    let race = Race::spawn().await;
    for round in Race::rounds() {
        let (account, shop) = (race.open(round, 500).await, race.open(round + 1, 7).await);
        let hold = race.place_hold(account, 400).await;
        let body = move |n: usize| match (round % 2 == 0, n % 3) {
            (true, _) => json!({}),
            (false, 0) => json!({"amount": 400, "to": shop}),
            (false, _) => json!({"to": shop}),
        };
        let capture = |client: ApiClient, n| async move { client.capture_hold(account, hold, body(n)).await }.boxed();
        let outcomes = race.run(round, 64, capture).await;
        let accepted = outcomes.accepted(&["hold_not_active"]);
        assert_eq!(accepted.len(), 1);
        race.expect_money(account, [100, 0, 100]).await;
        let received = if round % 2 == 0 { 7 } else { 407 };
        race.expect_money(shop, [received, 0, received]).await;
        for n in [0, 1, accepted[0]] {
            let again = capture(race.clients[(round + n + 1) % 2].with_key(&format!("{round}-{n}")), n).await;
            outcomes.expect_replay(n, &again);
        }
        race.expect_money(account, [100, 0, 100]).await;
        race.verify().await;
    }
}

#[tokio::test]
async fn capture_or_void_of_a_hold_wins() {
    let race = Race::spawn().await;
    for round in Race::rounds() {
        let (account, shop) = (race.open(round, 1_000).await, race.open(round + 1, 0).await);
        let hold = race.place_hold(account, 400).await;
        let is_capture = move |n: usize| (n + round / 2).is_multiple_of(2);
        let body = if round % 2 == 0 { json!({}) } else { json!({"to": shop}) };
        let send = |client: ApiClient, n| {
            let body = body.clone();
            async move {
                match is_capture(n) {
                    true => client.capture_hold(account, hold, body).await,
                    false => client.void_hold(account, hold).await,
                }
            }
            .boxed()
        };
        let accepted = race.run(round, 16, send).await.accepted(&["hold_not_active"]);
        assert_eq!(accepted.len(), 1);
        let captured = 400 * count(&accepted, is_capture);
        race.expect_money(account, [1_000 - captured, 0, 1_000 - captured]).await;
        let received = if round % 2 == 0 { 0 } else { captured };
        race.expect_money(shop, [received, 0, received]).await;
        race.verify().await;
    }
}

#[tokio::test]
async fn void_releases_what_captures_of_a_part_left() {
    let race = Race::spawn().await;
    for round in Race::rounds() {
        let account = race.open(round, 1_000).await;
        let hold = race.place_hold(account, 400).await;
        let is_capture = |n: usize| !(n + round).is_multiple_of(5);
        let send = |client: ApiClient, n| {
            async move {
                match is_capture(n) {
                    true => client.capture_hold(account, hold, json!({"amount": 100, "final": false})).await,
                    false => client.void_hold(account, hold).await,
                }
            }
            .boxed()
        };
        let accepted = race.run(round, 10, send).await.accepted(&["hold_not_active"]);
        let captures = count(&accepted, is_capture);
        let voids = count(&accepted, |n| !is_capture(n));
        assert_eq!(voids, i64::from(captures < 4), "{captures} captures");
        assert!(captures <= 4, "{captures} captures");
        let balance = 1_000 - 100 * captures;
        race.expect_money(account, [balance, 0, balance]).await;
        race.verify().await;
    }
}

#[tokio::test]
async fn five_of_six_holds_of_1000_fit_on_5000() {
    let race = Race::spawn().await;
    for round in Race::rounds() {
        let account = race.open(round, 5_000).await;
        let place =
            |client: ApiClient, _| async move { client.place_hold(account, json!({"amount": 1_000})).await }.boxed();
        let outcomes = race.run(round, 6, place).await;
        let accepted = outcomes.accepted(&["insufficient_funds"]);
        assert_eq!(accepted.len(), 5);
        race.expect_money(account, [5_000, 5_000, 0]).await;
        let again = place(race.clients[0].with_key(&format!("{round}-{}", accepted[0])), 0).await;
        outcomes.expect_replay(accepted[0], &again);
        race.expect_money(account, [5_000, 5_000, 0]).await;
        race.verify().await;
    }
}

#[tokio::test]
async fn holds_withdrawals_and_transfers_spend_money_once() {
    let race = Race::spawn().await;
    for round in Race::rounds() {
        let (account, other) = (race.open(round, 5_000).await, race.open(round + 1, 0).await);
        let send = |client: ApiClient, n| {
            async move {
                match (n + round) % 3 {
                    0 => client.place_hold(account, json!({"amount": 1_000})).await,
                    1 => client.withdraw(account, 1_000).await,
                    _ => client.transfer(account, other, 1_000).await,
                }
            }
            .boxed()
        };
        let accepted = race.run(round, 18, send).await.accepted(&["insufficient_funds"]);
        assert_eq!(accepted.len(), 5);
        let [held, withdrawn, sent] = [0, 1, 2].map(|kind| 1_000 * count(&accepted, |n| (n + round) % 3 == kind));
        race.expect_money(account, [5_000 - withdrawn - sent, held, 0]).await;
        race.expect_money(other, [sent, 0, sent]).await;
        race.verify().await;
    }
}

/// A payment of 100 from or to an account, which is reversed by naming one side or the other.
struct Payment {
    /// The account of each side and the version of its event; twice the same for a payment of one account.
    sides: [(Uuid, i64); 2],
    /// The accounts that get the money back and pay it back, with their balances after the payment.
    credited: Option<(Uuid, i64)>,
    debited: Option<(Uuid, i64)>,
}

impl Payment {
    /// Makes the payment of this round. Later rounds repeat the kinds.
    async fn make(race: &Race, round: usize) -> Self {
        let client = &race.clients[0];
        let (account, other) = (race.open(round, 1_000).await, race.open(round + 1, 50).await);
        let version =
            |response: Response, pointer: &str| response.expect(201).body.pointer(pointer).unwrap().as_i64().unwrap();
        match round % 5 {
            0 => {
                let version = version(client.deposit(account, 100).await, "/version");
                Self { sides: [(account, version); 2], credited: None, debited: Some((account, 1_100)) }
            }
            1 => {
                let sent = client.transfer(account, other, 100).await.expect(201);
                Self::between(&sent, account, other)
            }
            2 => {
                let version = version(client.withdraw(account, 100).await, "/version");
                Self { sides: [(account, version); 2], credited: Some((account, 900)), debited: None }
            }
            3 => {
                let hold = race.place_hold(account, 300).await;
                let body = json!({"amount": 100, "to": other});
                Self::between(&client.capture_hold(account, hold, body).await.expect(201), account, other)
            }
            _ => {
                let hold = race.place_hold(account, 100).await;
                let version = version(client.capture_hold(account, hold, json!({})).await, "/version");
                Self { sides: [(account, version); 2], credited: Some((account, 900)), debited: None }
            }
        }
    }

    fn between(sent: &Response, account: Uuid, other: Uuid) -> Self {
        let version = |pointer| sent.body.pointer(pointer).unwrap().as_i64().unwrap();
        Self {
            sides: [(account, version("/from/version")), (other, version("/to/version"))],
            credited: Some((account, 900)),
            debited: Some((other, 150)),
        }
    }

    async fn expect_reversed(&self, race: &Race, reversed: i64) {
        for (side, change) in [(self.credited, reversed), (self.debited, -reversed)] {
            if let Some((account, balance)) = side {
                race.expect_money(account, [balance + change, 0, balance + change]).await;
            }
        }
    }
}

#[tokio::test]
async fn reversals_never_sum_above_the_payment() {
    let race = Race::spawn().await;
    for round in Race::rounds() {
        let payment = Payment::make(&race, round).await;
        let sides = payment.sides;
        let reverse = |body: Value| {
            move |client: ApiClient, n: usize| {
                let ((account, version), body) = (sides[n / 2 % 2], body.clone());
                async move { client.reverse(account, version, body).await }.boxed()
            }
        };
        let outcomes = race.run(round, 64, reverse(json!({"amount": 3}))).await;
        assert_eq!(outcomes.accepted(&["exceeds_reversible"]).len(), 33);
        for refused in outcomes.0.iter().filter(|response| response.status == 422) {
            assert_eq!(refused.body["reversible"], 1);
        }
        payment.expect_reversed(&race, 99).await;
        for n in [0, 3, 63] {
            let client = race.clients[(round + n + 1) % 2].with_key(&format!("{round}-{n}"));
            outcomes.expect_replay(n, &reverse(json!({"amount": 3}))(client, n).await);
        }
        payment.expect_reversed(&race, 99).await;
        race.verify().await;

        let rest = join_all((0..16).map(|n| reverse(json!({}))(race.clients[n % 2].clone(), n))).await;
        assert_eq!(Outcomes(rest).accepted(&["already_reversed"]).len(), 1);
        payment.expect_reversed(&race, 100).await;
        race.verify().await;
    }
}

#[tokio::test]
async fn one_of_64_reversals_of_the_whole_pays_back() {
    let race = Race::spawn().await;
    for round in Race::rounds() {
        let payment = Payment::make(&race, round).await;
        let sides = payment.sides;
        let reverse = |client: ApiClient, n: usize| {
            let ((account, version), body) =
                (sides[n / 2 % 2], if n.is_multiple_of(3) { json!({}) } else { json!({"amount": 100}) });
            async move { client.reverse(account, version, body).await }.boxed()
        };
        let outcomes = race.run(round, 64, reverse).await;
        assert_eq!(outcomes.accepted(&["already_reversed"]).len(), 1);
        payment.expect_reversed(&race, 100).await;
        race.verify().await;
    }
}

#[tokio::test]
async fn reversal_and_other_debits_share_the_money() {
    let race = Race::spawn().await;
    for round in Race::rounds() {
        let (account, other) = (race.open(round, 0).await, race.open(round + 1, 100).await);
        let is_deposit = round % 2 == 0;
        // The money comes from a deposit, or from another account, to which the reversal pays it back.
        let reversed = match is_deposit {
            true => {
                (account, race.clients[0].deposit(account, 100).await.expect(201).body["version"].as_i64().unwrap())
            }
            false => {
                let sent = race.clients[0].transfer(other, account, 100).await.expect(201);
                (other, sent.body["from"]["version"].as_i64().unwrap())
            }
        };
        let amount = if round / 2 % 2 == 0 { 100 } else { 30 };
        let kind = |n: usize| (n + round) % 3;
        let send = |client: ApiClient, n| {
            async move {
                match kind(n) {
                    0 => client.reverse(reversed.0, reversed.1, json!({"amount": amount})).await,
                    1 => client.withdraw(account, amount).await,
                    _ => client.place_hold(account, json!({"amount": amount})).await,
                }
            }
            .boxed()
        };
        let codes = ["insufficient_funds", "already_reversed", "exceeds_reversible"];
        let accepted = race.run(round, 24, send).await.accepted(&codes);
        assert_eq!(i64::try_from(accepted.len()).unwrap(), 100 / amount);
        let [reversed, withdrawn, held] = [0, 1, 2].map(|of| amount * count(&accepted, |n| kind(n) == of));
        let balance = 100 - reversed - withdrawn;
        race.expect_money(account, [balance, held, 100 % amount]).await;
        let paid_back = if is_deposit { 100 } else { reversed };
        race.expect_money(other, [paid_back, 0, paid_back]).await;
        race.verify().await;
    }
}

#[tokio::test]
async fn money_that_leaves_reaches_the_limit_of_the_day_exactly() {
    let race = Race::spawn().await;
    // The clock of the log is at noon of the next day, so that no period ends during the test.
    let tomorrow = Utc::now().date_naive() + Days::new(1);
    race.app.raise_log_time(tomorrow.and_time(NaiveTime::from_hms_opt(12, 0, 0).unwrap()).and_utc()).await;
    for round in Race::rounds() {
        let (account, other) = (race.open(round, 1_000).await, race.open(round + 1, 0).await);
        let limit = if round % 2 == 0 { "out_per_day" } else { "out_per_month" };
        race.clients[0].set_limits(account, json!({limit: 50})).await.expect(200);
        // Every second round consists of withdrawals alone.
        let kind = |n: usize| if round / 2 % 2 == 0 { 0 } else { n % 3 };
        let send = |client: ApiClient, n| {
            async move {
                match kind(n) {
                    0 => client.withdraw(account, 1).await,
                    1 => client.transfer(account, other, 1).await,
                    _ => client.place_hold(account, json!({"amount": 1})).await,
                }
            }
            .boxed()
        };
        let outcomes = race.run(round, 100, send).await;
        let accepted = outcomes.accepted(&["limit_exceeded"]);
        assert_eq!(accepted.len(), 50);
        for refused in outcomes.0.iter().filter(|response| response.status == 422) {
            assert_eq!((&refused.body["limit"], &refused.body["used"]), (&json!(limit), &json!(50)));
        }
        let [withdrawn, sent, held] = [0, 1, 2].map(|of| count(&accepted, |n| kind(n) == of));
        let balance = 1_000 - withdrawn - sent;
        race.expect_money(account, [balance, held, balance - held]).await;
        race.expect_money(other, [sent, 0, sent]).await;
        race.verify().await;
    }
}

#[tokio::test]
async fn debits_stop_at_an_overdraft_that_is_lowered() {
    let race = Race::spawn().await;
    for round in Race::rounds() {
        let account = race.open(round, 0).await;
        race.clients[0].set_limits(account, json!({"overdraft": 100})).await.expect(200);
        let is_setting = |n: usize| n % 8 == round % 8;
        let send = |client: ApiClient, n| {
            async move {
                match is_setting(n) {
                    true => client.set_limits(account, json!({"overdraft": 30})).await,
                    false => client.withdraw(account, 10).await,
                }
            }
            .boxed()
        };
        let outcomes = race.run(round, 24, send).await;
        let accepted = outcomes.accepted(&["insufficient_funds"]);
        let withdrawn = count(&accepted, |n| !is_setting(n));
        assert_eq!(count(&accepted, is_setting), 3);
        assert!((3..=10).contains(&withdrawn), "{withdrawn} withdrawals");
        let balance = -10 * withdrawn;
        race.expect_money(account, [balance, 0, balance + 30]).await;
        race.verify().await;
    }
}
