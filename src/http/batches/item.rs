//! One command of a batch: a JSON object of the command's name, the parameters of its path, the fields of its body, and an idempotency
//! key.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapDeserializer},
};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::item_fields::ItemFields;
use crate::http::{
    commands::{ApiCommand, CommandKind},
    error_code::ErrorCode,
    extract::{
        body::{canonical, field_of, malformed},
        headers::is_key,
        nested_path::{PathHold, PathTransaction, transaction_version},
        parameters::uuid,
    },
    problem::Problem,
};

const COMMAND: &str = "command";
const IDEMPOTENCY_KEY: &str = "idempotency_key";

/// A command of a batch whose body is parsed.
#[derive(Debug)]
pub struct Item {
    /// The command.
    pub command: ApiCommand,
    /// Its idempotency key, and what the key identifies.
    pub key: Option<ItemKey>,
}

/// The idempotency key of a command of a batch.
#[derive(Debug)]
pub struct ItemKey {
    /// The key as the caller chose it.
    pub key: String,
    /// The command as canonical JSON, without the key.
    pub canonical: Vec<u8>,
}

/// Why an item cannot be executed.
#[derive(Debug)]
pub enum ItemError {
    /// It has no known command, or a field that the command does not have. A JSON batch with such an item is refused.
    NotACommand(Problem),
    /// The command is malformed. It fails by itself, like the single command.
    Malformed(Problem),
}

impl ItemError {
    /// The problem.
    pub fn into_problem(self) -> Problem {
        match self {
            Self::NotACommand(problem) | Self::Malformed(problem) => problem,
        }
    }
}

/// Parses one command.
///
/// # Errors
/// See [`ItemError`].
pub fn parse_item(json: &[u8]) -> Result<Item, ItemError> {
    let members = Members::parse(json)?;
    let kind = members.kind()?;
    members.require_known(kind)?;
    members.command(kind).map_err(ItemError::Malformed)
}

/// The members of a JSON object, in the order of the text.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    fn parse(json: &'a [u8]) -> Result<Self, ItemError> {
        serde_json::from_slice(json).map_err(|error| {
            ItemError::NotACommand(malformed(None, format!("A command must be a JSON object: {error}.")))
        })
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| *value)
    }

    fn kind(&self) -> Result<CommandKind, ItemError> {
        let name = self.get(COMMAND).map(|value| serde_json::from_str::<Cow<'_, str>>(value.get()));
        let unknown = |detail: String| ItemError::NotACommand(malformed(Some(COMMAND.to_owned()), detail));
        match name {
            None => Err(unknown("The command could not be parsed: missing field `command`.".to_owned())),
            Some(name) => name.ok().and_then(|name| CommandKind::from_name(&name)).ok_or_else(|| {
                let names = CommandKind::ALL.map(CommandKind::name).join(", ");
                unknown(format!("command must be one of {names}."))
            }),
        }
    }

    /// Rejects a field that the command does not have, then one that is repeated.
    fn require_known(&self, kind: CommandKind) -> Result<(), ItemError> {
        let fields = ItemFields::of(kind);
        if let Some((unknown, _)) = self.0.iter().find(|(name, _)| !fields.contains(name)) {
            let detail = format!("The command {} has no field `{unknown}`.", kind.name());
            return Err(ItemError::NotACommand(malformed(Some(unknown.to_string()), detail)));
        }
        // All names are known, so that the first repeated one is among the first few members.
        let is_repeated = |at: &usize| self.0[..*at].iter().any(|(earlier, _)| *earlier == self.0[*at].0);
        match (0..self.0.len()).find(is_repeated) {
            None => Ok(()),
            Some(at) => {
                let name = self.0[at].0.to_string();
                let detail = format!("The command could not be parsed: duplicate field `{name}`.");
                Err(ItemError::Malformed(malformed(Some(name), detail)))
            }
        }
    }

    fn command(&self, kind: CommandKind) -> Result<Item, Problem> {
        let key = self.key()?;
        let command = match kind {
            CommandKind::Open => ApiCommand::Open(self.body(kind)?),
            CommandKind::Deposit => ApiCommand::Deposit(self.account()?, self.body(kind)?),
            CommandKind::Withdraw => ApiCommand::Withdraw(self.account()?, self.body(kind)?),
            CommandKind::Transfer => ApiCommand::Transfer(self.body(kind)?),
            CommandKind::Freeze => ApiCommand::Freeze(self.account()?, self.body(kind)?),
            CommandKind::Unfreeze => ApiCommand::Unfreeze(self.account()?, self.body(kind)?),
            CommandKind::Close => ApiCommand::Close(self.account()?, self.body(kind)?),
            CommandKind::PlaceHold => ApiCommand::PlaceHold(self.account()?, self.body(kind)?),
            CommandKind::CaptureHold => ApiCommand::CaptureHold(self.hold()?, self.body(kind)?),
            CommandKind::VoidHold => ApiCommand::VoidHold(self.hold()?, self.body(kind)?),
            CommandKind::Reverse => ApiCommand::Reverse(self.transaction()?, self.body(kind)?),
            CommandKind::SetLimits => ApiCommand::SetLimits(self.account()?, self.body(kind)?),
        };
        Ok(Item { command, key })
    }

    /// The fields of the single command's body.
    fn body<B: DeserializeOwned>(&self, kind: CommandKind) -> Result<B, Problem> {
        let fields = ItemFields::of(kind);
        let members = || {
            let of_body = self.0.iter().filter(|(name, _)| fields.body.contains(&&**name));
            MapDeserializer::new(of_body.map(|(name, value)| (&**name, *value)))
        };
        B::deserialize(members()).map_err(|error: serde_json::Error| {
            let field = serde_path_to_error::deserialize::<_, B>(members()).err().and_then(|error| field_of(&error));
            malformed(field, format!("The command could not be parsed: {error}."))
        })
    }

    fn account(&self) -> Result<Uuid, Problem> {
        self.id("account_id")
    }

    fn hold(&self) -> Result<PathHold, Problem> {
        Ok(PathHold { account_id: self.account()?, hold_id: self.id("hold_id")? })
    }

    fn transaction(&self) -> Result<PathTransaction, Problem> {
        let account_id = self.account()?;
        Ok(PathTransaction { account_id, version: transaction_version(self.required("version")?.get())? })
    }

    fn id(&self, field: &'static str) -> Result<Uuid, Problem> {
        let text: Cow<'_, str> = serde_json::from_str(self.required(field)?.get()).map_err(|error| {
            malformed(Some(field.to_owned()), format!("The command could not be parsed: {field}: {error}."))
        })?;
        uuid(field, &text)
    }

    fn required(&self, field: &'static str) -> Result<&'a RawValue, Problem> {
        self.get(field).ok_or_else(|| {
            malformed(Some(field.to_owned()), format!("The command could not be parsed: missing field `{field}`."))
        })
    }

    fn key(&self) -> Result<Option<ItemKey>, Problem> {
        let Some(value) = self.get(IDEMPOTENCY_KEY) else { return Ok(None) };
        match serde_json::from_str::<Option<String>>(value.get()) {
            Ok(None) => Ok(None),
            Ok(Some(key)) if is_key(&key) => Ok(Some(ItemKey { key, canonical: self.canonical() })),
            Ok(Some(_)) | Err(_) => {
                let detail = "idempotency_key must have 1 to 255 visible ASCII characters.";
                Err(Problem::field(ErrorCode::InvalidIdempotencyKey, IDEMPOTENCY_KEY, detail))
            }
        }
    }

    /// The object as canonical JSON, without its key.
    fn canonical(&self) -> Vec<u8> {
        let mut members: Vec<_> = self.0.iter().filter(|(name, _)| name != IDEMPOTENCY_KEY).collect();
        members.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let mut text = vec![b'{'];
        for (name, value) in members {
            if text.len() > 1 {
                text.push(b',');
            }
            // Names of fields have no character that JSON escapes.
            text.push(b'"');
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b"\":");
            match is_canonical(value.get()) {
                true => text.extend_from_slice(value.get().as_bytes()),
                false => text.extend_from_slice(&canonical(value.get().as_bytes())),
            }
        }
        text.push(b'}');
        text
    }
}

/// Whether a JSON value has only one notation: an integer, or a text without escapes.
fn is_canonical(value: &str) -> bool {
    match value.as_bytes() {
        [b'"', text @ ..] => !text.contains(&b'\\'),
        number => number.len() < 19 && number.iter().all(u8::is_ascii_digit),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor).map(Members)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(8);
        while let Some(MemberName(name)) = map.next_key()? {
            members.push((name, map.next_value()?));
        }
        Ok(members)
    }
}

/// A name that is borrowed from the text unless it has escapes.
#[derive(Deserialize)]
struct MemberName<'a>(#[serde(borrow)] Cow<'a, str>);
