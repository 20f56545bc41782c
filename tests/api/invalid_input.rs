//! Input that cannot be understood: whatever is wrong with it, it is refused with its code, and nothing is recorded.

use serde_json::json;
use uuid::Uuid;

use crate::support::{Response, App, ApiClient, log::Log, spawn_app};

/// A command that is well-formed as it stands, with each member of its body as JSON text.
struct Command {
    path: String,
    members: Vec<(&'static str, String)>,
}

impl Command {
    fn new(path: impl Into<String>, members: &[(&'static str, &str)]) -> Self {
        let members = members.iter().map(|(field, value)| (*field, (*value).to_owned())).collect();
        Self { path: path.into(), members }
    }

    fn takes(&self, field: &str) -> bool {
        self.members.iter().any(|(name, _)| *name == field)
    }

    fn body(&self) -> String {
        self.with_header("", "")
    }

    /// The body with another value for `field`.
    fn with(&self, field: &str, value: &str) -> String {
        let member = |(name, usual): &(&str, String)| {
            format!("\"{name}\":{}", if *name == field { value } else { usual.as_str() })
        };
        object(self.members.iter().map(member))
    }

    fn without(&self, field: &str) -> String {
        let others = self.members.iter().filter(|(name, _)| *name != field);
        object(others.map(|(name, value)| format!("\"{name}\":{value}")))
    }
}

fn object(members: impl Iterator<Item = String>) -> String {
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// A bank with two accounts, and every command on them.
struct Counter {
    app: App,
    client: ApiClient,
    account: Uuid,
    commands: Vec<Command>,
    before: Log,
}

async fn counter() -> Counter {
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
    let over_the_counter = [&movement[..], &[("channel", "\"branch\"")]].concat();
    commands.extend(["deposits", "withdrawals"].map(|verb| Command::new(on_account(verb), &over_the_counter)));
    commands
        .extend(["freeze", "unfreeze", "close"].map(|verb| Command::new(on_account(verb), &[("reason", "\"why\"")])));
    let before = app.log().await;
    Counter { app, client, account, commands, before }
}

impl Counter {
    /// The commands whose body has this field.
    fn taking(&self, field: &str) -> impl Iterator<Item = &Command> {
        self.commands.iter().filter(move |command| command.takes(field))
    }

    async fn refuses(&self, path: &str, body: impl Into<Vec<u8>>, code: &str) -> Response {
        refuses(&self.client, path, body, code).await
    }

    /// Each of `values`, which stand apart by spaces, in the place of `field` in every command that has it.
    async fn refuses_each(&self, field: &str, values: &str, code: &str) {
        for command in self.taking(field) {
            for value in values.split(' ') {
                let refused = self.refuses(&command.path, command.with(field, value), code).await;
                let blamed = &refused.body["errors"][0]["field"];
                assert!(code == "malformed_request" || blamed == field, "{value}: {}", refused.body);
            }
        }
    }

    async fn has_recorded_nothing(&self) {
        assert_eq!(self.app.log().await, self.before);
    }
}

async fn refuses(client: &ApiClient, path: &str, body: impl Into<Vec<u8>>, code: &str) -> Response {
    let body = body.into();
    let sent = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
    let response = client.post(path, body).await;
    assert_eq!(response.body["code"], code, "{path} {sent}: {} {}", response.status, response.body);
    response.expect_problem(400, code)
}

#[tokio::test]
async fn what_is_altered_below_is_well_formed_as_it_stands() {
    let counter = counter().await;
    for command in &counter.commands {
        let response = counter.client.post(&format!("{}?dry_run=true", command.path), command.body()).await;
        assert!([200, 422].contains(&response.status), "{}: {}", command.path, response.body);
    }
}

#[tokio::test]
async fn an_amount_is_a_plain_integer_within_its_bounds() {
    let counter = counter().await;
    let no_integer = r#"1.5 1.0 1e2 1E2 100e-2 1e400 0.0 "100" "" true false [] [100] {"amount":100}"#;
    let beyond = "-1 -0 9007199254740992 9223372036854775808 -9223372036854775809 18446744073709551616";
    let no_json = "01 +1 .5 1. 0x10 1_000 NaN Infinity";
    for field in ["amount", "initial_deposit"] {
        counter.refuses_each(field, no_integer, "invalid_amount").await;
        counter.refuses_each(field, beyond, "invalid_amount").await;
        counter.refuses_each(field, no_json, "malformed_request").await;
    }
    counter.refuses_each("amount", "0 null", "invalid_amount").await;
    counter.has_recorded_nothing().await;
}

#[tokio::test]
async fn a_currency_is_an_iso_code() {
    let counter = counter().await;
    let none = r#""eur" "XYZW" "XYZ" "EU" "" "EUR\u0020" "€" 17 true ["EUR"] {}"#;
    counter.refuses_each("currency", none, "invalid_currency").await;
    let null = counter.commands[0].with_header("currency", "null");
    counter.refuses("/v1/accounts", null, "invalid_currency").await;
    counter.has_recorded_nothing().await;
}

#[tokio::test]
async fn a_text_is_a_text_that_can_be_kept() {
    let counter = counter().await;
    for (field, chars_max) in [("owner", 255), ("reference", 500), ("reason", 500)] {
        for character in ["a", "ä", "😀"] {
            let too_long = format!("\"{}\"", character.repeat(chars_max + 1));
            counter.refuses_each(field, &too_long, "invalid_parameter").await;
        }
        counter.refuses_each(field, r#""a\u0000b" "\u0000""#, "invalid_parameter").await;
        let unreadable = "\"\\ud800\" \"\\udc00\\ud800\" \"a\nb\" \"\\x\" \"a 17 true [\"a\"] {}";
        counter.refuses_each(field, unreadable, "malformed_request").await;
    }
    counter.refuses_each("owner", "\"\"", "invalid_parameter").await;
    counter.has_recorded_nothing().await;
}

#[tokio::test]
async fn a_channel_is_one_of_three_words_and_a_transfer_has_none() {
    let counter = counter().await;
    let none = r#""ATM" "Branch" "post" "" "atm\u0020" "branch,atm" 17 true ["atm"] {} {"atm":null}"#;
    counter.refuses_each("channel", none, "malformed_request").await;
    let transfer = counter.commands.iter().find(|command| command.takes("from")).unwrap();
    let body = transfer.body().replace('}', r#","channel":"atm"}"#);
    counter.refuses(&transfer.path, body, "malformed_request").await;
    counter.has_recorded_nothing().await;
}

#[tokio::test]
async fn an_id_is_a_hyphenated_uuid() {
    let counter = counter().await;
    let id = Uuid::from_u128(404);
    let otherwise_written = [id.simple().to_string(), id.braced().to_string(), id.urn().to_string()];
    for field in ["account_id", "from", "to"] {
        for text in otherwise_written.iter().map(String::as_str).chain(["", "x", "17"]) {
            counter.refuses_each(field, &format!("\"{text}\""), "invalid_parameter").await;
        }
        counter.refuses_each(field, "17 true [] {}", "malformed_request").await;
    }
    for text in otherwise_written.iter().map(String::as_str).chain(["x", "17", "%00", "%FF", "%zz", "%20"]) {
        for verb in ["deposits", "withdrawals", "freeze", "unfreeze", "close"] {
            counter.refuses(&format!("/v1/accounts/{text}/{verb}"), "{\"amount\":1}", "invalid_parameter").await;
        }
        for path in
            ["/v1/accounts/{account_id}", "/v1/accounts/{account_id}/transactions", "/v1/transfers/{transfer_id}"]
        {
            let field = path.split(['{', '}']).nth(1).unwrap();
            let refused = counter.client.get(&path.replace(&format!("{{{field}}}"), text)).await;
            let refused = refused.expect_problem(400, "invalid_parameter");
            assert!(text.starts_with('%') || refused.body["errors"][0]["field"] == field, "{}", refused.body);
        }
    }
    counter.has_recorded_nothing().await;
}

#[tokio::test]
async fn a_body_has_each_field_that_is_needed_once_and_no_other() {
    let counter = counter().await;
    for command in &counter.commands {
        let (path, body) = (&command.path, command.body());
        let inside = &body[1..body.len() - 1];
        for unknown in ["amuont", "", "\\ud800"] {
            counter.refuses(path, format!("{{{inside},\"{unknown}\":1}}"), "malformed_request").await;
        }
        for (field, value) in &command.members {
            counter.refuses(path, format!("{{{inside},\"{field}\":{value}}}"), "malformed_request").await;
        }
    }
    for field in ["amount", "from", "to"] {
        for command in counter.taking(field) {
            counter.refuses(&command.path, command.without(field), "malformed_request").await;
        }
    }
    counter.refuses("/v1/accounts", counter.commands[0].without("currency"), "malformed_request").await;
    counter.has_recorded_nothing().await;
}

/// A value ten thousand levels deep.
fn deep(open: &str, close: &str) -> String {
    format!("{}1{}", open.repeat(10_000), close.repeat(10_000))
}

#[tokio::test]
async fn a_body_is_one_object() {
    let counter = counter().await;
    let deep = deep("[", "]");
    for command in &counter.commands {
        let (path, body) = (&command.path, command.body());
        let values: Vec<&str> = command.members.iter().map(|(_, value)| value.as_str()).collect();
        let by_order = format!("[{}]", values.join(","));
        let (unended, unbegun) = (&body[..body.len() - 1], &body[1..]);
        let (marked, twice, in_array) = (format!("\u{feff}{body}"), format!("{body}{body}"), format!("[{body}]"));
        let deep_inside = format!("{{\"deep\":{deep}}}");
        let others = ["null", "true", "17", "\"text\"", "[]", "[null]", " ", "{", "nonsense", &by_order, &in_array];
        for shape in others.into_iter().chain([unended, unbegun, &marked, &twice, &deep, &deep_inside]) {
            counter.refuses(path, shape, "malformed_request").await;
        }
        for place in [2, body.len()] {
            let mut no_utf_8 = body.clone().into_bytes();
            no_utf_8.insert(place, 0xff);
            counter.refuses(path, no_utf_8, "malformed_request").await;
        }
    }
    for command in counter.commands.iter().filter(|command| !command.takes("reason")) {
        counter.refuses(&command.path, "", "malformed_request").await;
        counter.refuses(&command.path, "{}", "malformed_request").await;
    }
    counter.has_recorded_nothing().await;
}

#[tokio::test]
async fn deep_nesting_in_the_place_of_any_value_is_refused() {
    let counter = counter().await;
    for command in &counter.commands {
        for (field, _) in &command.members {
            for deep in [deep("[", "]"), deep("{\"a\":", "}")] {
                let keyed = counter.client.with_key("deep");
                let refused = keyed.post(&command.path, command.with(field, &deep)).await;
                assert_eq!(refused.status, 400, "{field}: {}", refused.body);
            }
        }
    }
    counter.has_recorded_nothing().await;
}

#[tokio::test]
async fn null_says_no_more_than_nothing_where_a_field_may_be_absent() {
    let counter = counter().await;
    let nothing = r#"{"currency": "EUR", "owner": null, "initial_deposit": null, "account_id": null}"#;
    let opened = counter.client.post("/v1/accounts", nothing).await.expect(201);
    let facts = json!({"owner": "anonymous", "currency": "EUR", "initial_deposit": 0});
    assert_eq!(counter.app.log().await.event_payloads(opened.account_id()), [("AccountOpened", facts)]);
    let deposits = format!("/v1/accounts/{}/deposits", counter.account);
    let nothing = r#"{"amount": 1, "currency": null, "reference": null, "channel": null}"#;
    counter.client.post(&deposits, nothing).await.expect(201);
    assert_eq!(counter.app.log().await.event_payloads(counter.account)[1], ("MoneyDeposited", json!({"amount": 1})));
}

#[tokio::test]
async fn every_command_refuses_what_its_query_and_headers_cannot_say() {
    let counter = counter().await;
    for command in &counter.commands {
        for query in ["dry_run=maybe", "dry_run=", "dryrun=true", "limit=1", "dry_run=true&dry_run=true"] {
            counter.refuses(&format!("{}?{query}", command.path), command.body(), "invalid_parameter").await;
        }
        let too_long = counter.client.with_key(&"k".repeat(256));
        refuses(&too_long, &command.path, command.body(), "invalid_idempotency_key").await;
        refuses(&counter.client.if_match("1"), &command.path, command.body(), "invalid_parameter").await;
    }
    counter.has_recorded_nothing().await;
}

#[tokio::test]
async fn a_query_says_what_its_operation_understands() {
    let counter = counter().await;
    let one = format!("/v1/accounts/{}", counter.account);
    let movements = format!("{one}/transactions");
    let days = format!("{one}/daily-balances");
    let transfer = format!("/v1/transfers/{}", counter.account);
    let owner = format!("owner={}", "ä".repeat(256));
    // Before any time that Postgres can tell.
    let ages_ago = format!("after=a-fffffffffffffff{}", counter.account.simple());
    let of_lists = "limit=0 limit=1001 limit=-1 limit=x limit= limit=1.0 limit=9223372036854775808 limit=1&limit=1 \
                    limits=1 after= after=x after=a after=v after=v-1 after=17 after=v9223372036854775808";
    let of_accounts = format!("status=gone status=Open status= owner= owner=%00 {owner} kind=deposit {ages_ago}");
    let of_movements = "kind=gift kind= owner=anna from=yesterday from= from=2026-13-01T00:00:00Z to=1700000000 \
                        to=2026-01-31 to=2026-01-31T12:00:00 to=2026-01-31T12:00:00+01:00";
    let of_days = "from= to= from=yesterday to=2026-02-30 from=2026-1-31 from=26-01-31 to=2026-01-31T00:00:00Z \
                   from=-026-01-31 from=%2B026-01-31 to=12026-01-31 to=20260131 from=2026-02-01&to=2026-01-31 \
                   from=2026-01-31&from=2026-01-31 to=%00 to=\u{661}026-01-31 kind=deposit after=d after=d2026-02-30 \
                   after=d-026-01-31 after=d2026-01-31x date=2026-01-31";
    for (path, queries) in [
        (&*days, of_lists),
        (&days, of_days),
        ("/v1/accounts", of_lists),
        ("/v1/accounts", &of_accounts),
        (&movements, of_lists),
        (&movements, of_movements),
        (&one, "limit=1 as_if=1"),
        (&transfer, "limit=1"),
    ] {
        for query in queries.split(' ') {
            let response = counter.client.get(&format!("{path}?{query}")).await;
            assert_eq!(response.status, 400, "{path}?{query}: {}", response.body);
            response.expect_problem(400, "invalid_parameter");
        }
    }
    counter.client.get("/v1/accounts?currency=eur").await.expect_problem(400, "invalid_currency");
    counter.has_recorded_nothing().await;
}

#[tokio::test]
async fn a_cursor_leads_on_in_its_own_list_alone() {
    let counter = counter().await;
    let deposited = counter.client.deposit(counter.account, 1).await.expect(201);
    let (accounts, movements) = ("/v1/accounts", &*format!("/v1/accounts/{}/transactions", counter.account));
    let days = &*format!("/v1/accounts/{}/daily-balances", counter.account);
    // The one day there is has no page behind it.
    let minimum = deposited.position();
    counter.client.get(&format!("{days}?after=d2026-01-31&min_position={minimum}")).await.expect(200);
    for path in [accounts, movements] {
        counter.client.get(&format!("{path}?after=d2026-01-31")).await.expect_problem(400, "invalid_parameter");
    }
    for (path, another) in [(accounts, movements), (movements, accounts), (movements, days)] {
        let page = counter.client.get(&format!("{path}?limit=1&min_position={}", deposited.position())).await;
        let page = page.expect(200);
        let next = page.text("/next");
        counter.client.get(&format!("{path}?after={next}")).await.expect(200);
        counter.client.get(&format!("{another}?after={next}")).await.expect_problem(400, "invalid_parameter");
    }
}
