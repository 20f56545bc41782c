//! Invalid requests: each is refused with the right code, and nothing is recorded.

use passbook_testkit::{ApiClient, App, Response, log::Log, spawn_app};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

/// A valid command, with each member of its body as JSON text.
struct Command {
    path: String,
    members: Vec<(&'static str, String)>,
}

impl Command {
    fn new(path: impl Into<String>, members: &[(&'static str, &str)]) -> Self {
        let members = members.iter().map(|(field, value)| (*field, (*value).to_owned())).collect();
        Self { path: path.into(), members }
    }

    fn has_field(&self, field: &str) -> bool {
        self.members.iter().any(|(name, _)| *name == field)
    }

    /// Whether the body has required fields. All commands with a currency have.
    fn needs_body(&self) -> bool {
        self.has_field("currency")
    }

    fn body(&self) -> String {
        self.body_with("", "")
    }

    /// The body with this value for `field`.
    fn body_with(&self, field: &str, value: &str) -> String {
        let member = |(name, valid): &(&str, String)| {
            format!("\"{name}\":{}", if *name == field { value } else { valid.as_str() })
        };
        object(self.members.iter().map(member))
    }

    fn body_without(&self, field: &str) -> String {
        let others = self.members.iter().filter(|(name, _)| *name != field);
        object(others.map(|(name, value)| format!("\"{name}\":{value}")))
    }
}

fn object(members: impl Iterator<Item = String>) -> String {
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// An app with two accounts, and every command on them.
pub struct Fixture {
    app: App,
    pub client: ApiClient,
    pub account: Uuid,
    commands: Vec<Command>,
    before: Log,
}

pub async fn fixture() -> Fixture {
    let app = spawn_app().await;
    let client = app.client();
    let (account, other) = (client.open_with_balance(100).await, client.open_with_balance(100).await);
    let (from, to) = (format!("\"{account}\""), format!("\"{other}\""));
    let new = json!(Uuid::from_u128(17)).to_string();
    let movement = [("amount", "1"), ("currency", "\"EUR\""), ("reference", "\"rent\"")];
    let mut commands = vec![
        Command::new(
            "/v1/accounts",
            &[("currency", "\"EUR\""), ("owner", "\"anna\""), ("initial_deposit", "1"), ("account_id", &new)],
        ),
        Command::new("/v1/transfers", &[&[("from", from.as_str()), ("to", to.as_str())], &movement[..]].concat()),
    ];
    let on_account = |verb| format!("/v1/accounts/{account}/{verb}");
    let with_channel = [&movement[..], &[("channel", "\"branch\"")]].concat();
    commands.extend(["deposits", "withdrawals"].map(|verb| Command::new(on_account(verb), &with_channel)));
    commands
        .extend(["freeze", "unfreeze", "close"].map(|verb| Command::new(on_account(verb), &[("reason", "\"why\"")])));
    let hold = client.place_hold(account, json!({"amount": 1})).await.expect(201).uuid("/hold/hold_id");
    let on_hold = |verb| format!("/v1/accounts/{account}/holds/{hold}/{verb}");
    let placed = [&movement[..], &[("expires_in_seconds", "60")]].concat();
    let captured = [("amount", "1"), ("final", "true"), ("to", &to), ("reference", "\"rent\"")];
    commands.extend([
        Command::new(on_account("holds"), &placed),
        Command::new(on_hold("capture"), &captured),
        Command::new(on_hold("void"), &[("reason", "\"why\"")]),
        Command::new(on_account("transactions/1/reversal"), &[("amount", "1"), ("reason", "\"why\"")]),
    ]);
    let before = app.log().await;
    Fixture { app, client, account, commands, before }
}

impl Fixture {
    /// The commands whose body has this field.
    fn commands_with(&self, field: &str) -> impl Iterator<Item = &Command> {
        self.commands.iter().filter(move |command| command.has_field(field))
    }

    /// Expects the same refusal with and without an idempotency key.
    async fn expect_refusal(&self, path: &str, body: impl Into<Vec<u8>>, code: &str) -> Response {
        let body = body.into();
        expect_refusal(&self.client.with_key("refused"), path, body.clone(), code).await;
        expect_refusal(&self.client, path, body, code).await
    }

    /// Sends each of the space-separated `values` as `field` in every command with that field, and expects a refusal.
    async fn expect_refusals(&self, field: &str, values: &str, code: &str) {
        for command in self.commands_with(field) {
            for value in values.split(' ') {
                let refused = self.expect_refusal(&command.path, command.body_with(field, value), code).await;
                let named_field = &refused.body["errors"][0]["field"];
                assert!(code == "malformed_request" || named_field == field, "{value}: {}", refused.body);
            }
        }
    }

    pub async fn expect_nothing_recorded(&self) {
        assert_eq!(self.app.log().await, self.before);
    }
}

async fn expect_refusal(client: &ApiClient, path: &str, body: impl Into<Vec<u8>>, code: &str) -> Response {
    let body = body.into();
    let sent = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
    let response = client.post(path, body).await;
    assert_eq!(response.body["code"], code, "{path} {sent}: {} {}", response.status, response.body);
    response.expect_problem(400, code)
}

#[tokio::test]
async fn unmodified_commands_are_valid() {
    let fixture = fixture().await;
    for command in &fixture.commands {
        let response = fixture.client.post(&format!("{}?dry_run=true", command.path), command.body()).await;
        assert!([200, 422].contains(&response.status), "{}: {}", command.path, response.body);
    }
}

#[tokio::test]
async fn amount_must_be_an_integer_in_range() {
    let fixture = fixture().await;
    let no_integer = r#"1.5 1.0 1e2 1E2 100e-2 1e400 -1e400 0.0 "100" "" true false [] [100] {"amount":100}"#;
    let beyond = "-1 -0 9007199254740992 9223372036854775808 -9223372036854775809 18446744073709551616";
    let no_json = "01 +1 .5 1. 0x10 1_000 NaN Infinity";
    for field in ["amount", "initial_deposit"] {
        fixture.expect_refusals(field, no_integer, "invalid_amount").await;
        fixture.expect_refusals(field, beyond, "invalid_amount").await;
        fixture.expect_refusals(field, no_json, "malformed_request").await;
    }
    fixture.expect_refusals("amount", "0", "invalid_amount").await;
    for command in fixture.commands_with("amount").filter(|command| command.needs_body()) {
        fixture.expect_refusal(&command.path, command.body_with("amount", "null"), "invalid_amount").await;
    }
    fixture.expect_nothing_recorded().await;
}

#[tokio::test]
async fn currency_must_be_an_active_iso_code() {
    let fixture = fixture().await;
    let none = r#""eur" "XYZW" "XYZ" "EU" "" "EUR\u0020" "€" 17 1e400 true ["EUR"] {}"#;
    fixture.expect_refusals("currency", none, "invalid_currency").await;
    let null = fixture.commands[0].body_with("currency", "null");
    fixture.expect_refusal("/v1/accounts", null, "invalid_currency").await;
    fixture.expect_nothing_recorded().await;
}

#[tokio::test]
async fn text_must_be_valid_and_within_its_length() {
    let fixture = fixture().await;
    for (field, chars_max) in [("owner", 255), ("reference", 500), ("reason", 500)] {
        for character in ["a", "ä", "😀"] {
            let too_long = format!("\"{}\"", character.repeat(chars_max + 1));
            fixture.expect_refusals(field, &too_long, "invalid_parameter").await;
        }
        fixture.expect_refusals(field, r#""a\u0000b" "\u0000""#, "invalid_parameter").await;
        let unreadable = "\"\\ud800\" \"\\udc00\\ud800\" \"a\nb\" \"\\x\" \"a 17 true [\"a\"] {}";
        fixture.expect_refusals(field, unreadable, "malformed_request").await;
    }
    fixture.expect_refusals("owner", "\"\"", "invalid_parameter").await;
    fixture.expect_nothing_recorded().await;
}

#[tokio::test]
async fn channel_must_be_known_and_absent_on_transfers() {
    let fixture = fixture().await;
    let none = r#""ATM" "Branch" "post" "" "atm\u0020" "branch,atm" 17 true ["atm"] {} {"atm":null}"#;
    fixture.expect_refusals("channel", none, "malformed_request").await;
    let transfer = fixture.commands.iter().find(|command| command.has_field("from")).unwrap();
    let body = transfer.body().replace('}', r#","channel":"atm"}"#);
    fixture.expect_refusal(&transfer.path, body, "malformed_request").await;
    fixture.expect_nothing_recorded().await;
}

#[tokio::test]
async fn id_must_be_a_hyphenated_uuid() {
    let fixture = fixture().await;
    let id = Uuid::from_u128(404);
    let other_notations = [id.simple().to_string(), id.braced().to_string(), id.urn().to_string()];
    for field in ["account_id", "from", "to"] {
        for text in other_notations.iter().map(String::as_str).chain(["", "x", "17"]) {
            fixture.expect_refusals(field, &format!("\"{text}\""), "invalid_parameter").await;
        }
        fixture.expect_refusals(field, "17 true [] {}", "malformed_request").await;
    }
    for text in other_notations.iter().map(String::as_str).chain(["x", "17", "%00", "%FF", "%zz", "%20"]) {
        for verb in ["deposits", "withdrawals", "freeze", "unfreeze", "close", "holds"] {
            fixture.expect_refusal(&format!("/v1/accounts/{text}/{verb}"), "{\"amount\":1}", "invalid_parameter").await;
        }
        for path in
            ["/v1/accounts/{account_id}", "/v1/accounts/{account_id}/transactions", "/v1/transfers/{transfer_id}"]
        {
            let field = path.split(['{', '}']).nth(1).unwrap();
            let refused = fixture.client.get(&path.replace(&format!("{{{field}}}"), text)).await;
            let refused = refused.expect_problem(400, "invalid_parameter");
            assert!(text.starts_with('%') || refused.body["errors"][0]["field"] == field, "{}", refused.body);
        }
    }
    fixture.expect_nothing_recorded().await;
}

#[tokio::test]
async fn unknown_duplicate_and_missing_fields_are_refused() {
    let fixture = fixture().await;
    for command in &fixture.commands {
        let (path, body) = (&command.path, command.body());
        let inside = &body[1..body.len() - 1];
        for unknown in ["amuont", "", "\\ud800"] {
            let refused =
                fixture.expect_refusal(path, format!("{{{inside},\"{unknown}\":1}}"), "malformed_request").await;
            let named = &refused.body["errors"][0]["field"];
            assert!(unknown == "\\ud800" || named == unknown, "{unknown}: {}", refused.body);
        }
        for (field, value) in &command.members {
            let body = format!("{{{inside},\"{field}\":{value}}}");
            let refused = fixture.expect_refusal(path, body, "malformed_request").await;
            assert_eq!(refused.body["errors"][0]["field"], *field, "{}", refused.body);
        }
    }
    for field in ["amount", "from", "to"] {
        for command in fixture.commands_with(field).filter(|command| command.needs_body()) {
            let body = command.body_without(field);
            let refused = fixture.expect_refusal(&command.path, body, "malformed_request").await;
            assert_eq!(refused.body["errors"][0]["field"], field, "{}", refused.body);
        }
    }
    fixture.expect_refusal("/v1/accounts", fixture.commands[0].body_without("currency"), "malformed_request").await;
    fixture.expect_nothing_recorded().await;
}

/// A value nested ten thousand levels deep.
fn deep(open: &str, close: &str) -> String {
    format!("{}1{}", open.repeat(10_000), close.repeat(10_000))
}

#[tokio::test]
async fn body_must_be_one_json_object() {
    let fixture = fixture().await;
    let deep = deep("[", "]");
    for command in &fixture.commands {
        let (path, body) = (&command.path, command.body());
        let values: Vec<&str> = command.members.iter().map(|(_, value)| value.as_str()).collect();
        let as_array = format!("[{}]", values.join(","));
        let (no_end, no_start) = (&body[..body.len() - 1], &body[1..]);
        let (two_boms, twice, in_array) =
            (format!("\u{feff}\u{feff}{body}"), format!("{body}{body}"), format!("[{body}]"));
        let deep_inside = format!("{{\"deep\":{deep}}}");
        let others = ["null", "true", "17", "\"text\"", "[]", "[null]", " ", "{", "nonsense", &as_array, &in_array];
        for shape in others.into_iter().chain([no_end, no_start, &two_boms, &twice, &deep, &deep_inside]) {
            fixture.expect_refusal(path, shape, "malformed_request").await;
        }
        for index in [2, body.len()] {
            let mut invalid_utf_8 = body.clone().into_bytes();
            invalid_utf_8.insert(index, 0xff);
            fixture.expect_refusal(path, invalid_utf_8, "malformed_request").await;
        }
    }
    for command in fixture.commands.iter().filter(|command| command.needs_body()) {
        fixture.expect_refusal(&command.path, "", "malformed_request").await;
        fixture.expect_refusal(&command.path, "{}", "malformed_request").await;
    }
    fixture.expect_nothing_recorded().await;
}

#[tokio::test]
async fn byte_order_mark_and_media_type_of_an_empty_body_are_ignored() {
    let fixture = fixture().await;
    let body = &fixture.commands[0].body();
    let keyed = fixture.client.with_key("marked");
    keyed.post("/v1/accounts", format!("\u{feff}{body}")).await.expect(201);
    assert!(keyed.post("/v1/accounts", body.clone()).await.expect(201).is_replay());
    let freeze = format!("/v1/accounts/{}/freeze", fixture.account);
    fixture.client.with_header("content-type", "text/plain").send(Method::POST, &freeze, "").await.expect(200);
}

#[tokio::test]
async fn deep_nesting_in_any_field_is_refused() {
    let fixture = fixture().await;
    for command in &fixture.commands {
        for (field, _) in &command.members {
            for deep in [deep("[", "]"), deep("{\"a\":", "}")] {
                let keyed = fixture.client.with_key("deep");
                let refused = keyed.post(&command.path, command.body_with(field, &deep)).await;
                assert_eq!(refused.status, 400, "{field}: {}", refused.body);
            }
        }
    }
    fixture.expect_nothing_recorded().await;
}

#[tokio::test]
async fn null_means_absent_for_optional_fields() {
    let fixture = fixture().await;
    let nulls = r#"{"currency": "EUR", "owner": null, "initial_deposit": null, "account_id": null}"#;
    let opened = fixture.client.post("/v1/accounts", nulls).await.expect(201);
    let data = json!({"owner": "anonymous", "currency": "EUR", "initial_deposit": 0});
    assert_eq!(fixture.app.log().await.event_payloads(opened.account_id()), [("AccountOpened", data)]);
    let deposits = format!("/v1/accounts/{}/deposits", fixture.account);
    let nulls = r#"{"amount": 1, "currency": null, "reference": null, "channel": null}"#;
    fixture.client.post(&deposits, nulls).await.expect(201);
    let deposited = ("MoneyDeposited", json!({"amount": 1}));
    assert_eq!(fixture.app.log().await.event_payloads(fixture.account).pop(), Some(deposited));
}

#[tokio::test]
async fn invalid_query_and_headers_of_commands_are_refused() {
    let fixture = fixture().await;
    for command in &fixture.commands {
        for query in ["dry_run=maybe", "dry_run=", "dryrun=true", "limit=1", "dry_run=true&dry_run=true"] {
            fixture.expect_refusal(&format!("{}?{query}", command.path), command.body(), "invalid_parameter").await;
        }
        let too_long = fixture.client.with_key(&"k".repeat(256));
        expect_refusal(&too_long, &command.path, command.body(), "invalid_idempotency_key").await;
        expect_refusal(&fixture.client.if_match("1"), &command.path, command.body(), "invalid_parameter").await;
    }
    fixture.expect_nothing_recorded().await;
}
