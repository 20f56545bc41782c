//! The fields of each command of a batch: those of the batch itself, the parameters of the single command's path, and the fields of its
//! body, which are read from the body's type.

use std::sync::LazyLock;

use serde::{
    Deserializer,
    de::{DeserializeOwned, Error, Visitor, value},
    forward_to_deserialize_any,
};

use crate::http::commands::{
    CommandKind,
    accounts::{OpenAccount, Reason, SetLimits},
    holds::{CaptureHoldBody, PlaceHoldBody, VoidHoldBody},
    movements::{MoveMoney, ReverseTransaction, TransferMoney},
};

/// The fields that every command of a batch has.
pub const COMMON_FIELDS: [&str; 2] = ["command", "idempotency_key"];

/// The fields of one kind of command.
#[derive(Clone, Copy, Debug)]
pub struct ItemFields {
    /// The parameters of the single command's path.
    pub path: &'static [&'static str],
    /// The fields of its body.
    pub body: &'static [&'static str],
}

static FIELDS: LazyLock<[ItemFields; CommandKind::ALL.len()]> =
    LazyLock::new(|| CommandKind::ALL.map(|kind| ItemFields { path: path_fields(kind), body: body_fields(kind) }));

impl ItemFields {
    /// The fields of this kind.
    pub fn of(kind: CommandKind) -> Self {
        FIELDS[kind as usize]
    }

    /// Whether there is a field of this name.
    pub fn contains(self, name: &str) -> bool {
        [&COMMON_FIELDS, self.path, self.body].into_iter().any(|fields| fields.contains(&name))
    }
}

fn path_fields(kind: CommandKind) -> &'static [&'static str] {
    match kind {
        CommandKind::Open | CommandKind::Transfer => &[],
        CommandKind::Deposit
        | CommandKind::Withdraw
        | CommandKind::Freeze
        | CommandKind::Unfreeze
        | CommandKind::Close
        | CommandKind::PlaceHold
        | CommandKind::SetLimits => &["account_id"],
        CommandKind::CaptureHold | CommandKind::VoidHold => &["account_id", "hold_id"],
        CommandKind::Reverse => &["account_id", "version"],
    }
}

fn body_fields(kind: CommandKind) -> &'static [&'static str] {
    match kind {
        CommandKind::Open => fields_of::<OpenAccount>(),
        CommandKind::Deposit | CommandKind::Withdraw => fields_of::<MoveMoney>(),
        CommandKind::Transfer => fields_of::<TransferMoney>(),
        CommandKind::Freeze | CommandKind::Unfreeze | CommandKind::Close => fields_of::<Reason>(),
        CommandKind::PlaceHold => fields_of::<PlaceHoldBody>(),
        CommandKind::CaptureHold => fields_of::<CaptureHoldBody>(),
        CommandKind::VoidHold => fields_of::<VoidHoldBody>(),
        CommandKind::Reverse => fields_of::<ReverseTransaction>(),
        CommandKind::SetLimits => fields_of::<SetLimits>(),
    }
}

/// The names of the fields that a struct deserializes.
fn fields_of<B: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // The deserializer has no value, so that the result is always an error.
    drop(B::deserialize(FieldNames(&mut fields)));
    fields
}

/// A deserializer without a value. It notes the names that the derived implementation of a struct asks for.
struct FieldNames<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
        Err(value::Error::custom("there is no value"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, value::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_command_are_those_of_its_path_and_its_body() {
        let fields = ItemFields::of(CommandKind::CaptureHold);
        assert_eq!(fields.path, ["account_id", "hold_id"]);
        assert_eq!(fields.body, ["amount", "final", "to", "reference"]);
        for kind in CommandKind::ALL {
            let fields = ItemFields::of(kind);
            assert!(!fields.body.is_empty(), "{kind:?}");
            assert!(!fields.path.iter().any(|field| fields.body.contains(field)), "{kind:?}");
            assert!(COMMON_FIELDS.iter().all(|field| fields.contains(field)) && !fields.contains("is_final"));
        }
    }
}
