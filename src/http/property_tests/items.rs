//! The commands of batches: an item is accepted if the body of the single command is.

use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use super::{
    super::{
        batches::item::{ItemError, parse_item},
        commands::{
            CommandKind,
            accounts::{OpenAccount, Reason, SetLimits},
            holds::{CaptureHoldBody, PlaceHoldBody, VoidHoldBody},
            movements::{MoveMoney, ReverseTransaction, TransferMoney},
        },
        extract::body::canonical,
    },
    bodies::{is_accepted, members, object_text},
    bytes, mutated,
};

const ID: &str = "01900000-0000-7000-8000-000000000001";

/// The parameters of the single command's path.
fn path_members(kind: CommandKind) -> Vec<(&'static str, Value)> {
    match kind {
        CommandKind::Open | CommandKind::Transfer => vec![],
        CommandKind::CaptureHold | CommandKind::VoidHold => vec![("account_id", json!(ID)), ("hold_id", json!(ID))],
        CommandKind::Reverse => vec![("account_id", json!(ID)), ("version", json!(2))],
        CommandKind::Deposit
        | CommandKind::Withdraw
        | CommandKind::Freeze
        | CommandKind::Unfreeze
        | CommandKind::Close
        | CommandKind::PlaceHold
        | CommandKind::SetLimits => vec![("account_id", json!(ID))],
    }
}

/// Whether the single command accepts this body.
fn is_body(kind: CommandKind, body: &[u8]) -> bool {
    match kind {
        CommandKind::Open => is_accepted::<OpenAccount>(body),
        CommandKind::Deposit | CommandKind::Withdraw => is_accepted::<MoveMoney>(body),
        CommandKind::Transfer => is_accepted::<TransferMoney>(body),
        CommandKind::Freeze | CommandKind::Unfreeze | CommandKind::Close => is_accepted::<Reason>(body),
        CommandKind::PlaceHold => is_accepted::<PlaceHoldBody>(body),
        CommandKind::CaptureHold => is_accepted::<CaptureHoldBody>(body),
        CommandKind::VoidHold => is_accepted::<VoidHoldBody>(body),
        CommandKind::Reverse => is_accepted::<ReverseTransaction>(body),
        CommandKind::SetLimits => is_accepted::<SetLimits>(body),
    }
}

proptest! {
    #[test]
    fn arbitrary_item_is_accepted_as_the_body_of_the_single_command(
        kind in select(&CommandKind::ALL[..]), members in members(), by in any::<usize>()
    ) {
        let path = path_members(kind);
        let body: Vec<_> = members.into_iter().filter(|(name, _)| !path.iter().any(|(known, _)| known == name)).collect();
        let mut item = [vec![("command", json!(kind.name()))], path, body.clone()].concat();
        item.rotate_left(by % 3);
        let expected = is_body(kind, object_text(&body).as_bytes());
        prop_assert_eq!(parse_item(object_text(&item).as_bytes()).is_ok(), expected, "{}", object_text(&item));
    }

    #[test]
    fn arbitrary_item_with_a_key_has_one_canonical_text(
        kind in select(&CommandKind::ALL[..]), members in members(), by in any::<usize>()
    ) {
        let without_key = [vec![("command", json!(kind.name()))], path_members(kind), members].concat();
        let mut item = [vec![("idempotency_key", json!("key"))], without_key.clone()].concat();
        item.rotate_left(by % 4);
        if let Ok(parsed) = parse_item(object_text(&item).as_bytes()) {
            let key = parsed.key.expect("a key");
            prop_assert_eq!(key.key, "key");
            prop_assert_eq!(key.canonical, canonical(object_text(&without_key).as_bytes()));
        }
    }

    #[test]
    fn arbitrary_bytes_are_an_item_or_rejected(
        line in prop_oneof![
            bytes(),
            mutated(members().prop_map(|members| object_text(&[vec![("command", json!("open"))], members].concat())))
                .prop_map(String::into_bytes),
        ]
    ) {
        let is_object = serde_json::from_slice::<Value>(&line).is_ok_and(|value| value.is_object());
        match parse_item(&line) {
            Ok(_) => prop_assert!(is_object || String::from_utf8_lossy(&line).contains("e"), "{:?}", String::from_utf8_lossy(&line)),
            Err(ItemError::NotACommand(problem) | ItemError::Malformed(problem)) => {
                prop_assert_eq!(problem.code().status().as_u16(), 400);
            }
        }
    }
}
