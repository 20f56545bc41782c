//! Bodies of every command, and query strings of every query.

use std::collections::{BTreeMap, BTreeSet};

use axum::{extract::Query, http::Uri};
use proptest::{collection::vec, prelude::*, sample::select};
use serde::de::DeserializeOwned;
use serde_json::{Value, json, value::RawValue};

use super::{
    super::{
        accounts::{MoveMoney, OpenAccount, Reason},
        ask::{Options, canonical, parse},
        daily_balances::DailyBalancesQuery,
        events::{AccountEventsQuery, EventsQuery},
        feed::StreamQuery,
        operations::RebuildQuery,
        parameters::Nothing,
        queries::{AccountQuery, AccountsQuery, Freshness},
        statement::StatementQuery,
        transactions::TransactionsQuery,
        transfers::TransferMoney,
    },
    bytes, mutated,
};

const FIELDS: [&str; 12] = [
    "currency",
    "owner",
    "initial_deposit",
    "account_id",
    "amount",
    "reference",
    "channel",
    "reason",
    "from",
    "to",
    "Amount",
    "",
];
const PARAMETERS: [&str; 16] = [
    "after",
    "after_version",
    "as_of",
    "as_of_version",
    "currency",
    "dry_run",
    "from",
    "kind",
    "limit",
    "min_position",
    "owner",
    "since",
    "status",
    "to",
    "type",
    "verify",
];

/// What a field of a body takes.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    /// Anything, which is judged later; it has to be there.
    Something,
    /// The same, and it may be absent.
    Anything,
    /// A text; it has to be there.
    Text,
    /// A text or `null`, and it may be absent.
    TextOrNothing,
}

type Shape = &'static [(&'static str, Takes)];

const OPEN_ACCOUNT: Shape = &[
    ("currency", Takes::Something),
    ("owner", Takes::TextOrNothing),
    ("initial_deposit", Takes::Anything),
    ("account_id", Takes::TextOrNothing),
];
const MOVE_MONEY: Shape = &[
    ("amount", Takes::Something),
    ("currency", Takes::Anything),
    ("reference", Takes::TextOrNothing),
    ("channel", Takes::TextOrNothing),
];
const TRANSFER_MONEY: Shape = &[
    ("from", Takes::Text),
    ("to", Takes::Text),
    ("amount", Takes::Something),
    ("currency", Takes::Anything),
    ("reference", Takes::TextOrNothing),
];
const REASON: Shape = &[("reason", Takes::TextOrNothing)];

/// Any JSON.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f32>().prop_map(|number| json!(number)),
        "\\PC{0,9}".prop_map(Value::from),
        select(vec!["EUR", "atm", "branch", "01900000-0000-7000-8000-000000000001"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        let members = vec(("[a-z]{0,3}", inner.clone()), 0..4);
        prop_oneof![
            vec(inner, 0..4).prop_map(Value::from),
            members.prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Members of an object, of which some may be there twice.
fn members() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    vec((select(&FIELDS[..]), value()), 0..6)
}

fn text_of(members: &[(&str, Value)]) -> String {
    let members: Vec<String> = members.iter().map(|(name, value)| format!("{}: {value}", json!(name))).collect();
    format!(" {{{}\n}}", members.join(" ,\t"))
}

/// Whether the contract takes an object with these members, before it looks at what they say.
fn fits(shape: Shape, members: &[(&str, Value)]) -> bool {
    let takes = |name: &str| shape.iter().find(|(known, _)| *known == name).map(|(_, takes)| *takes);
    let each = members.iter().enumerate().all(|(at, (name, value))| {
        let is_first = members[..at].iter().all(|(before, _)| before != name);
        is_first
            && match takes(name) {
                None => false,
                Some(Takes::Text) => value.is_string(),
                Some(Takes::TextOrNothing) => value.is_string() || value.is_null(),
                Some(Takes::Something | Takes::Anything) => true,
            }
    });
    let needed = shape.iter().filter(|(_, takes)| matches!(takes, Takes::Something | Takes::Text));
    each && needed.into_iter().all(|(needed, _)| members.iter().any(|(name, _)| name == needed))
}

fn is_taken<B: DeserializeOwned>(body: &[u8]) -> bool {
    parse::<B>(body).is_ok()
}

/// Whether each body takes it: to open, to move, to transfer, to change the status.
fn taken_as(body: &[u8]) -> [bool; 4] {
    [
        is_taken::<OpenAccount>(body),
        is_taken::<MoveMoney>(body),
        is_taken::<TransferMoney>(body),
        is_taken::<Reason>(body),
    ]
}

/// The queries that take `uri`.
fn asks<Q: DeserializeOwned>(uri: &Uri) -> bool {
    Query::<Q>::try_from_uri(uri).is_ok()
}

proptest! {
    #[test]
    fn whatever_members_a_body_has_the_contract_decides(members in members()) {
        let expected = [OPEN_ACCOUNT, MOVE_MONEY, TRANSFER_MONEY, REASON].map(|shape| fits(shape, &members));
        prop_assert_eq!(taken_as(text_of(&members).as_bytes()), expected, "{}", text_of(&members));
    }

    #[test]
    fn whatever_bytes_a_body_is_only_an_object_is_taken(
        body in prop_oneof![bytes(), mutated(members().prop_map(|members| text_of(&members))).prop_map(String::into_bytes)]
    ) {
        // A number too large to be held, such as 1e400, is judged where one is read.
        let is_object = body.is_empty() || serde_json::from_slice::<BTreeMap<String, &RawValue>>(&body).is_ok();
        let is_taken = taken_as(&body);
        prop_assert!(is_object || is_taken == [false; 4], "{:?}", String::from_utf8_lossy(&body));
    }

    #[test]
    fn whatever_order_and_space_a_body_has_it_is_the_same_request(
        members in members(), by in any::<usize>()
    ) {
        // Twice the same name makes no request.
        let mut names = BTreeSet::new();
        let members: Vec<_> = members.into_iter().filter(|(name, _)| names.insert(*name)).collect();
        let mut turned = members.clone();
        turned.rotate_left(by % members.len().max(1));
        let compact = Value::Object(turned.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        let [as_sent, compact] = [text_of(&members), compact.to_string()].map(|text| canonical(text.as_bytes()).ok());
        prop_assert!(as_sent.is_some());
        prop_assert_eq!(as_sent, compact);
    }

    #[test]
    fn whatever_depth_a_body_has_it_is_refused_and_not_followed(depth in 100..60_000usize, open in "[\\[{]") {
        let unit = if open == "[" { "[" } else { "{\"a\":" };
        let body = format!("{{\"amount\": {}", unit.repeat(depth.min(60_000 / unit.len())));
        prop_assert_eq!(taken_as(body.as_bytes()), [false; 4]);
        prop_assert!(canonical(body.as_bytes()).is_err());
    }

    #[test]
    fn whatever_query_is_asked_only_what_is_known_is_taken(
        parts in vec((prop_oneof![4 => select(&PARAMETERS[..]).prop_map(str::to_owned), 1 => "[a-z%+0-9]{0,6}"], "[ -~&&[^#<>\" ]]{0,12}"), 0..5)
    ) {
        let query: Vec<String> = parts.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let Ok(uri) = format!("/?{}", query.join("&")).parse::<Uri>() else { return Ok(()) };
        let taken = [
            asks::<Options>(&uri), asks::<AccountQuery>(&uri), asks::<AccountsQuery>(&uri), asks::<Freshness>(&uri),
            asks::<TransactionsQuery>(&uri), asks::<StatementQuery>(&uri), asks::<DailyBalancesQuery>(&uri),
            asks::<AccountEventsQuery>(&uri), asks::<EventsQuery>(&uri), asks::<StreamQuery>(&uri),
            asks::<RebuildQuery>(&uri), asks::<Nothing>(&uri),
        ];
        let stranger = parts.iter().any(|(name, value)| {
            let is_plain = !name.contains(['%', '+']) && !value.contains('&') && !name.is_empty();
            is_plain && !PARAMETERS.contains(&&**name)
        });
        prop_assert!(!stranger || taken == [false; 12], "{uri}: {taken:?}");
    }
}
