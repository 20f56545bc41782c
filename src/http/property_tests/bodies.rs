//! The bodies of all commands, and the query strings of all operations.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Uri;
use proptest::{collection::vec, prelude::*, sample::select};
use serde::de::DeserializeOwned;
use serde_json::{Value, json, value::RawValue};

use super::{
    super::{
        accounts::{AccountQuery, AccountsQuery},
        books::{journal::JournalQuery, trial_balance::TrialBalanceQuery},
        commands::{
            accounts::{OpenAccount, Reason, SetLimits},
            holds::{CaptureHoldBody, PlaceHoldBody, VoidHoldBody},
            movements::{MoveMoney, ReverseTransaction, TransferMoney},
        },
        daily_balances::DailyBalancesQuery,
        event_stream::StreamQuery,
        events::{AccountEventsQuery, EventsQuery},
        extract::{
            body::{canonical, parse},
            command::CommandOptions,
            parameters::{Freshness, NoParameters, parse_query},
        },
        holds::HoldsQuery,
        projections::RebuildQuery,
        statement::StatementQuery,
        transactions::TransactionsQuery,
    },
    bytes, mutated,
};

const FIELDS: [&str; 21] = [
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
    "metadata",
    "expires_in_seconds",
    "final",
    "overdraft",
    "per_movement",
    "out_per_day",
    "out_per_month",
    "hold_id",
    "version",
    "Amount",
    "",
];
const PARAMETERS: [&str; 17] = [
    "after",
    "after_version",
    "as_of",
    "as_of_version",
    "currency",
    "date",
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
    /// A 64-bit integer or `null`; optional.
    OptionalInteger,
    /// `true`, `false` or `null`; optional.
    OptionalBoolean,
    /// An object of texts or `null`; optional.
    OptionalTexts,
}

type Shape = &'static [(&'static str, Allowed)];

const OPEN_ACCOUNT: Shape = &[
    ("currency", Allowed::RequiredValue),
    ("owner", Allowed::OptionalText),
    ("initial_deposit", Allowed::OptionalValue),
    ("account_id", Allowed::OptionalText),
    ("metadata", Allowed::OptionalTexts),
];
const MOVE_MONEY: Shape = &[
    ("amount", Allowed::RequiredValue),
    ("currency", Allowed::OptionalValue),
    ("reference", Allowed::OptionalText),
    ("channel", Allowed::OptionalText),
    ("metadata", Allowed::OptionalTexts),
];
const TRANSFER_MONEY: Shape = &[
    ("from", Allowed::RequiredText),
    ("to", Allowed::RequiredText),
    ("amount", Allowed::RequiredValue),
    ("currency", Allowed::OptionalValue),
    ("reference", Allowed::OptionalText),
    ("metadata", Allowed::OptionalTexts),
];
const REASON: Shape = &[("reason", Allowed::OptionalText)];
const PLACE_HOLD: Shape = &[
    ("amount", Allowed::RequiredValue),
    ("currency", Allowed::OptionalValue),
    ("expires_in_seconds", Allowed::OptionalInteger),
    ("reference", Allowed::OptionalText),
    ("metadata", Allowed::OptionalTexts),
];
const CAPTURE_HOLD: Shape = &[
    ("amount", Allowed::OptionalValue),
    ("final", Allowed::OptionalBoolean),
    ("to", Allowed::OptionalText),
    ("reference", Allowed::OptionalText),
];
const REVERSE_TRANSACTION: Shape = &[("amount", Allowed::OptionalValue), ("reason", Allowed::OptionalText)];
const SET_LIMITS: Shape = &[
    ("overdraft", Allowed::OptionalValue),
    ("per_movement", Allowed::OptionalValue),
    ("out_per_day", Allowed::OptionalValue),
    ("out_per_month", Allowed::OptionalValue),
];
/// The bodies of all commands, in the order of [`accepted_by`].
const SHAPES: [Shape; 9] = [
    OPEN_ACCOUNT,
    MOVE_MONEY,
    TRANSFER_MONEY,
    REASON,
    PLACE_HOLD,
    CAPTURE_HOLD,
    REASON,
    REVERSE_TRANSACTION,
    SET_LIMITS,
];

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
pub(super) fn members() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    vec((select(&FIELDS[..]), value()), 0..6)
}

pub(super) fn object_text(members: &[(&str, Value)]) -> String {
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
                Some(Allowed::OptionalInteger) => value.is_i64() || value.is_null(),
                Some(Allowed::OptionalBoolean) => value.is_boolean() || value.is_null(),
                Some(Allowed::OptionalTexts) => {
                    value.is_null() || value.as_object().is_some_and(|pairs| pairs.values().all(Value::is_string))
                }
                Some(Allowed::RequiredValue | Allowed::OptionalValue) => true,
            }
    });
    let required =
        shape.iter().filter(|(_, allowed)| matches!(allowed, Allowed::RequiredValue | Allowed::RequiredText));
    are_allowed && required.into_iter().all(|(required, _)| members.iter().any(|(name, _)| name == required))
}

pub(super) fn is_accepted<B: DeserializeOwned>(body: &[u8]) -> bool {
    parse::<B>(body).is_ok()
}

/// Which commands accept the body, in the order of [`SHAPES`].
fn accepted_by(body: &[u8]) -> [bool; SHAPES.len()] {
    [
        is_accepted::<OpenAccount>(body),
        is_accepted::<MoveMoney>(body),
        is_accepted::<TransferMoney>(body),
        is_accepted::<Reason>(body),
        is_accepted::<PlaceHoldBody>(body),
        is_accepted::<CaptureHoldBody>(body),
        is_accepted::<VoidHoldBody>(body),
        is_accepted::<ReverseTransaction>(body),
        is_accepted::<SetLimits>(body),
    ]
}

/// Whether the query `Q` accepts the query string of `uri`.
fn accepts<Q: DeserializeOwned>(uri: &Uri) -> bool {
    parse_query::<Q>(uri).is_ok()
}

proptest! {
    #[test]
    fn arbitrary_members_are_accepted_as_the_contract_says(members in members()) {
        let expected = SHAPES.map(|shape| is_allowed(shape, &members));
        prop_assert_eq!(accepted_by(object_text(&members).as_bytes()), expected, "{}", object_text(&members));
    }

    #[test]
    fn arbitrary_bytes_are_an_object_or_rejected(
        body in prop_oneof![bytes(), mutated(members().prop_map(|members| object_text(&members))).prop_map(String::into_bytes)]
    ) {
        // A number beyond the range of a float, such as 1e400, is rejected only where it is parsed.
        let is_object = body.is_empty() || serde_json::from_slice::<BTreeMap<String, &RawValue>>(&body).is_ok();
        let accepted = accepted_by(&body);
        prop_assert!(is_object || accepted == [false; SHAPES.len()], "{:?}", String::from_utf8_lossy(&body));
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
        prop_assert_eq!(accepted_by(body.as_bytes()), [false; SHAPES.len()]);
    }

    #[test]
    fn arbitrary_query_parameters_are_known_or_rejected(
        parts in vec((prop_oneof![4 => select(&PARAMETERS[..]).prop_map(str::to_owned), 1 => "[a-z%+0-9]{0,6}"], "[ -~&&[^#<>\" ]]{0,12}"), 0..5)
    ) {
        let query: Vec<String> = parts.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let Ok(uri) = format!("/?{}", query.join("&")).parse::<Uri>() else { return Ok(()) };
        let accepted = [
            accepts::<CommandOptions>(&uri), accepts::<AccountQuery>(&uri), accepts::<AccountsQuery>(&uri), accepts::<Freshness>(&uri),
            accepts::<TransactionsQuery>(&uri), accepts::<HoldsQuery>(&uri), accepts::<StatementQuery>(&uri), accepts::<DailyBalancesQuery>(&uri),
            accepts::<AccountEventsQuery>(&uri), accepts::<EventsQuery>(&uri), accepts::<StreamQuery>(&uri),
            accepts::<RebuildQuery>(&uri), accepts::<NoParameters>(&uri),
            accepts::<TrialBalanceQuery>(&uri), accepts::<JournalQuery>(&uri),
        ];
        let has_unknown_name = parts.iter().any(|(name, value)| {
            let is_plain = !name.contains(['%', '+']) && !value.contains('&') && !name.is_empty();
            is_plain && !PARAMETERS.contains(&&**name)
        });
        prop_assert!(!has_unknown_name || accepted == [false; 15], "{uri}: {accepted:?}");
    }
}
