//! Invalid batches: each is refused as a whole with the index of the command, and nothing is recorded.

use passbook_testkit::{ApiClient, App, log::Log, spawn_app};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

const BATCH_BYTES_MAX: usize = 1024 * 1024;
const COMMANDS_MAX: usize = 1_000;

struct Fixture {
    app: App,
    client: ApiClient,
    account: Uuid,
    before: Log,
}

impl Fixture {
    async fn new() -> Self {
        let app = spawn_app().await;
        let client = app.client();
        let account = client.open_with_balance(100).await;
        let before = app.log().await;
        Self { app, client, account, before }
    }

    fn deposit(&self) -> Value {
        json!({"command": "deposit", "account_id": self.account, "amount": 1})
    }

    /// Expects in both modes that the batch is refused because of this command, which stands between two valid ones.
    async fn expect_refusal_of(&self, command: Value, field: Value) {
        for mode in ["atomic", "each"] {
            let commands = [self.deposit(), command.clone(), self.deposit()];
            let refused = self.client.batch(mode, &commands).await.expect_problem(400, "malformed_request");
            assert_eq!(refused.body["index"], 1, "{command}");
            assert_eq!(refused.body["errors"][0]["field"], field, "{command} {}", refused.body);
        }
    }

    async fn expect_nothing_recorded(&self) {
        assert_eq!(self.app.log().await, self.before);
    }
}

#[tokio::test]
async fn unknown_command_or_field_refuses_the_batch_with_its_index() {
    let fixture = Fixture::new().await;
    for name in ["", "Deposit", "deposits", "openAccount", "batch"] {
        fixture.expect_refusal_of(json!({"command": name, "account_id": fixture.account}), json!("command")).await;
    }
    for name in [json!(17), json!(null), json!({"deposit": null}), json!(["deposit"])] {
        fixture.expect_refusal_of(json!({"command": name, "amount": 1}), json!("command")).await;
    }
    fixture.expect_refusal_of(json!({"account_id": fixture.account, "amount": 1}), json!("command")).await;
    for unknown in ["amuont", "", "if_match", "dry_run", "Command", "transfer_id", "hold_id"] {
        let mut command = fixture.deposit();
        command[unknown] = json!(1);
        fixture.expect_refusal_of(command, json!(unknown)).await;
    }
    // A field of another command is unknown, also beside other errors.
    let command = json!({"command": "transfer", "from": 17, "account_id": fixture.account, "channel": "atm"});
    fixture.expect_refusal_of(command, json!("account_id")).await;
    for value in [json!(null), json!(17), json!("deposit"), json!([]), json!([fixture.deposit()])] {
        fixture.expect_refusal_of(value, Value::Null).await;
    }
    fixture.expect_nothing_recorded().await;
}

#[tokio::test]
async fn mode_and_number_of_commands_must_be_valid() {
    let fixture = Fixture::new().await;
    let client = &fixture.client;
    for mode in [json!("Atomic"), json!("all"), json!(""), json!(null), json!(1), json!({"atomic": null})] {
        let body = json!({"mode": mode, "commands": [fixture.deposit()]});
        let refused = client.command("/v1/batches", body).await.expect_problem(400, "malformed_request");
        assert_eq!(refused.text("/errors/0/field"), "mode");
    }
    let bodies = [
        (json!({"commands": [fixture.deposit()]}), "mode"),
        (json!({"mode": "each"}), "commands"),
        (json!({"mode": "each", "commands": null}), "commands"),
        (json!({"mode": "each", "commands": {}}), "commands"),
        (json!({"mode": "each", "commands": [fixture.deposit()], "dry_run": true}), "dry_run"),
    ];
    for (body, field) in bodies {
        let refused = client.command("/v1/batches", body).await.expect_problem(400, "malformed_request");
        assert_eq!(refused.text("/errors/0/field"), field);
    }
    for count in [0, COMMANDS_MAX + 1, 5 * COMMANDS_MAX] {
        let commands = vec![fixture.deposit(); count];
        for mode in ["atomic", "each"] {
            let refused = client.batch(mode, &commands).await.expect_problem(400, "invalid_parameter");
            assert_eq!(refused.text("/errors/0/field"), "commands");
        }
    }
    for body in ["", "[]", "17", "null", "{", "{\"mode\":\"each\",\"commands\":[{]}"] {
        client.post("/v1/batches", body).await.expect_problem(400, "malformed_request");
    }
    fixture.expect_nothing_recorded().await;
    client.batch("atomic", &vec![fixture.deposit(); COMMANDS_MAX]).await.expect(201);
}

#[tokio::test]
async fn invalid_value_in_an_atomic_batch_precedes_refusals_by_the_state() {
    let fixture = Fixture::new().await;
    let unknown = json!({"command": "deposit", "account_id": Uuid::from_u128(404), "amount": 1});
    let cases = [
        (json!({"command": "deposit", "account_id": fixture.account, "amount": 0}), "invalid_amount"),
        (json!({"command": "deposit", "account_id": fixture.account}), "malformed_request"),
        (json!({"command": "deposit", "account_id": "x", "amount": 1}), "invalid_parameter"),
        (json!({"command": "transfer", "from": fixture.account, "to": fixture.account, "amount": 1}), "same_account"),
        (json!({"command": "open", "currency": "XXQ"}), "invalid_currency"),
    ];
    for (command, code) in cases {
        let commands = [unknown.clone(), fixture.deposit(), command];
        let refused = fixture.client.batch("atomic", &commands).await.expect_problem(400, code);
        assert_eq!(refused.body["index"], 2, "{}", refused.body);
    }
    fixture.expect_nothing_recorded().await;
}

#[tokio::test]
async fn keys_and_conditions_must_suit_the_kind_of_batch() {
    let fixture = Fixture::new().await;
    let client = &fixture.client;
    let mut keyed = fixture.deposit();
    keyed["idempotency_key"] = json!("one");
    let refused = client.batch("atomic", &[fixture.deposit(), keyed.clone()]).await;
    let refused = refused.expect_problem(400, "invalid_parameter");
    assert_eq!((&refused.body["index"], refused.text("/errors/0/field")), (&json!(1), "idempotency_key"));
    let refused = client.with_key("all").batch("each", &[keyed.clone()]).await.expect_problem(400, "invalid_parameter");
    assert_eq!(refused.text("/errors/0/field"), "Idempotency-Key");
    let lines = keyed.to_string();
    let refused = client.with_key("all").batch_lines(lines.clone()).await.expect_problem(400, "invalid_parameter");
    assert_eq!(refused.text("/errors/0/field"), "Idempotency-Key");
    for etag in ["\"1\"", "*", "nonsense"] {
        let conditional = client.if_match(etag);
        for refused in [
            conditional.batch("atomic", &[fixture.deposit()]).await,
            conditional.batch("each", &[fixture.deposit()]).await,
            conditional.batch_lines(lines.clone()).await,
        ] {
            assert_eq!(refused.expect_problem(400, "invalid_parameter").text("/errors/0/field"), "If-Match");
        }
    }
    client
        .with_key("two words")
        .batch("atomic", &[fixture.deposit()])
        .await
        .expect_problem(400, "invalid_idempotency_key");
    let lines = client.with_header("content-type", "application/x-ndjson");
    let refused = lines.send(Method::POST, "/v1/batches?dry_run=true", keyed.to_string()).await;
    assert_eq!(refused.expect_problem(400, "invalid_parameter").text("/errors/0/field"), "dry_run");
    lines.send(Method::POST, "/v1/batches?dryrun=true", "").await.expect_problem(400, "invalid_parameter");
    fixture.expect_nothing_recorded().await;
}

#[tokio::test]
async fn body_up_to_one_mebibyte_is_accepted() {
    let fixture = Fixture::new().await;
    let batch = json!({"mode": "each", "commands": [fixture.deposit()]}).to_string();
    let padded = |bytes: usize| format!("{batch}{}", " ".repeat(bytes - batch.len()));
    fixture.client.post("/v1/batches", padded(BATCH_BYTES_MAX)).await.expect(200);
    let too_large = fixture.client.post("/v1/batches", padded(BATCH_BYTES_MAX + 1)).await;
    too_large.expect_problem(413, "payload_too_large");
    // The limit of all other operations is unchanged.
    let deposits = format!("/v1/accounts/{}/deposits", fixture.account);
    let padded = format!("{{\"amount\":1}}{}", " ".repeat(64 * 1024));
    fixture.client.post(&deposits, padded).await.expect_problem(413, "payload_too_large");
    for kind in ["text/plain", "application/ndjson", "application/jsonl", "text/x-ndjson", ""] {
        let client = fixture.client.with_header("content-type", kind);
        client.send(Method::POST, "/v1/batches", batch.clone()).await.expect_problem(415, "unsupported_media_type");
    }
    for kind in ["application/json", "application/x-ndjson"] {
        let client = fixture.client.with_header("content-type", kind).with_header("content-encoding", "gzip");
        client.send(Method::POST, "/v1/batches", batch.clone()).await.expect_problem(415, "unsupported_media_type");
    }
    let marked = format!("\u{feff}{batch}");
    fixture.client.post("/v1/batches", marked).await.expect(200);
}

#[tokio::test]
async fn duplicate_and_deeply_nested_members_fail_by_themselves() {
    let fixture = Fixture::new().await;
    let account = fixture.account;
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let items = [
        format!(r#"{{"command":"deposit","account_id":"{account}","amount":1,"amount":2}}"#),
        format!(r#"{{"command":"deposit","account_id":"{account}","account_id":"{account}","amount":2}}"#),
        format!(r#"{{"command":"deposit","command":"deposit","account_id":"{account}","amount":2}}"#),
        format!(r#"{{"command":"deposit","account_id":"{account}","amount":1,"reference":{deep}}}"#),
        format!(r#"{{"command":"deposit","account_id":"{account}","amount":1,"metadata":{{"a":"1","a":"2"}}}}"#),
    ];
    let body = format!(r#"{{"mode":"each","commands":[{}]}}"#, items.join(","));
    let refused = fixture.client.post("/v1/batches", body).await.expect(200);
    for (result, field) in refused.results().iter().zip(["amount", "account_id", "command", "reference", "metadata"]) {
        assert_eq!(result["problem"]["code"], "malformed_request", "{result}");
        assert_eq!(result["problem"]["errors"][0]["field"], field, "{result}");
    }
    fixture.expect_nothing_recorded().await;
}
