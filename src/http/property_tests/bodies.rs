//! The bodies of all commands, and the query strings of all operations.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Uri;
use proptest::{collection::vec, prelude::*, sample::select};
use serde::de::DeserializeOwned;
use serde_json::{Value, json, value::RawValue};

use super::{
    super::{
        account_status::Reason,
        accounts::{AccountQuery, AccountsQuery, OpenAccount},
        daily_balances::DailyBalancesQuery,
        event_stream::StreamQuery,
        events::{AccountEventsQuery, EventsQuery},
        extract::{
            command::{CommandOptions, canonical, parse},
            parameters::{Freshness, NoParameters, parse_query},
        },
        movements::MoveMoney,
        projections::RebuildQuery,
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

/// The values that the contract allows for a field of a body.
#[derive(Clone, Copy, PartialEq)]
enum Allowed {
    /// Any value, validated later; required.
    RequiredValue,
    /// Any value, validated later; optional.
    OptionalValue,
    /// A text; required.
    RequiredText,
    /// A text or `null`; optional.
    OptionalText,
}

type Shape = &'static [(&'static str, Allowed)];

const OPEN_ACCOUNT: Shape = &[
    ("currency", Allowed::RequiredValue),
    ("owner", Allowed::OptionalText),
    ("initial_deposit", Allowed::OptionalValue),
    ("account_id", Allowed::OptionalText),
];
const MOVE_MONEY: Shape = &[
    ("amount", Allowed::RequiredValue),
    ("currency", Allowed::OptionalValue),
    ("reference", Allowed::OptionalText),
    ("channel", Allowed::OptionalText),
];
const TRANSFER_MONEY: Shape = &[
    ("from", Allowed::RequiredText),
    ("to", Allowed::RequiredText),
    ("amount", Allowed::RequiredValue),
    ("currency", Allowed::OptionalValue),
    ("reference", Allowed::OptionalText),
];
const REASON: Shape = &[("reason", Allowed::OptionalText)];

/// An arbitrary JSON value.
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

/// Members of an object, some of which may be repeated.
fn members() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    vec((select(&FIELDS[..]), value()), 0..6)
}

fn object_text(members: &[(&str, Value)]) -> String {
    let members: Vec<String> = members.iter().map(|(name, value)| format!("{}: {value}", json!(name))).collect();
    format!(" {{{}\n}}", members.join(" ,\t"))
}

/// Whether the contract allows an object with these members, before their values are validated.
fn is_allowed(shape: Shape, members: &[(&str, Value)]) -> bool {
    let allowed = |name: &str| shape.iter().find(|(known, _)| *known == name).map(|(_, allowed)| *allowed);
    let are_allowed = members.iter().enumerate().all(|(at, (name, value))| {
        let is_first = members[..at].iter().all(|(earlier, _)| earlier != name);
        is_first
            && match allowed(name) {
                None => false,
                Some(Allowed::RequiredText) => value.is_string(),
                Some(Allowed::OptionalText) => value.is_string() || value.is_null(),
                Some(Allowed::RequiredValue | Allowed::OptionalValue) => true,
            }
    });
    let required =
        shape.iter().filter(|(_, allowed)| matches!(allowed, Allowed::RequiredValue | Allowed::RequiredText));
    are_allowed && required.into_iter().all(|(required, _)| members.iter().any(|(name, _)| name == required))
}

fn is_accepted<B: DeserializeOwned>(body: &[u8]) -> bool {
    parse::<B>(body).is_ok()
}

/// Which commands accept the body: open an account, move money, transfer money, change the status.
fn accepted_by(body: &[u8]) -> [bool; 4] {
    [
        is_accepted::<OpenAccount>(body),
        is_accepted::<MoveMoney>(body),
        is_accepted::<TransferMoney>(body),
        is_accepted::<Reason>(body),
    ]
}

/// Whether the query `Q` accepts the query string of `uri`.
fn accepts<Q: DeserializeOwned>(uri: &Uri) -> bool {
    parse_query::<Q>(uri).is_ok()
}

proptest! {
    #[test]
    fn arbitrary_members_are_accepted_as_the_contract_says(members in members()) {
        let expected = [OPEN_ACCOUNT, MOVE_MONEY, TRANSFER_MONEY, REASON].map(|shape| is_allowed(shape, &members));
        prop_assert_eq!(accepted_by(object_text(&members).as_bytes()), expected, "{}", object_text(&members));
    }

    #[test]
    fn arbitrary_bytes_are_an_object_or_rejected(
        body in prop_oneof![bytes(), mutated(members().prop_map(|members| object_text(&members))).prop_map(String::into_bytes)]
    ) {
        // A number beyond the range of a float, such as 1e400, is rejected only where it is parsed.
        let is_object = body.is_empty() || serde_json::from_slice::<BTreeMap<String, &RawValue>>(&body).is_ok();
        let accepted = accepted_by(&body);
        prop_assert!(is_object || accepted == [false; 4], "{:?}", String::from_utf8_lossy(&body));
    }

    #[test]
    fn arbitrary_order_and_white_space_do_not_change_the_canonical_body(
        members in members(), by in any::<usize>()
    ) {
        // A body with a repeated member is rejected.
        let mut names = BTreeSet::new();
        let members: Vec<_> = members.into_iter().filter(|(name, _)| names.insert(*name)).collect();
        let mut rotated = members.clone();
        rotated.rotate_left(by % members.len().max(1));
        let compact = Value::Object(rotated.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        let [as_sent, compact] = [object_text(&members), compact.to_string()].map(|text| canonical(text.as_bytes()));
        prop_assert_eq!(as_sent, compact);
    }

    #[test]
    fn arbitrary_deep_nesting_is_rejected(depth in 100..60_000usize, open in "[\\[{]") {
        let unit = if open == "[" { "[" } else { "{\"a\":" };
        let body = format!("{{\"amount\": {}", unit.repeat(depth.min(60_000 / unit.len())));
        prop_assert_eq!(accepted_by(body.as_bytes()), [false; 4]);
    }

    #[test]
    fn arbitrary_query_parameters_are_known_or_rejected(
        parts in vec((prop_oneof![4 => select(&PARAMETERS[..]).prop_map(str::to_owned), 1 => "[a-z%+0-9]{0,6}"], "[ -~&&[^#<>\" ]]{0,12}"), 0..5)
    ) {
        let query: Vec<String> = parts.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let Ok(uri) = format!("/?{}", query.join("&")).parse::<Uri>() else { return Ok(()) };
        let accepted = [
            accepts::<CommandOptions>(&uri), accepts::<AccountQuery>(&uri), accepts::<AccountsQuery>(&uri), accepts::<Freshness>(&uri),
            accepts::<TransactionsQuery>(&uri), accepts::<StatementQuery>(&uri), accepts::<DailyBalancesQuery>(&uri),
            accepts::<AccountEventsQuery>(&uri), accepts::<EventsQuery>(&uri), accepts::<StreamQuery>(&uri),
            accepts::<RebuildQuery>(&uri), accepts::<NoParameters>(&uri),
        ];
        let has_unknown_name = parts.iter().any(|(name, value)| {
            let is_plain = !name.contains(['%', '+']) && !value.contains('&') && !name.is_empty();
            is_plain && !PARAMETERS.contains(&&**name)
        });
        prop_assert!(!has_unknown_name || accepted == [false; 12], "{uri}: {accepted:?}");
    }
}
