//! The schemas of the commands of a batch in the OpenAPI document: one for each command, of the fields of its body, the parameters of its
//! path and the fields of the batch.

use std::{borrow::Cow, collections::BTreeMap};

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{Discriminator, KnownFormat, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema, SchemaFormat, Type},
};

use super::item_fields::ItemFields;
use crate::http::commands::CommandKind;

const ITEM: &str = "BatchCommand";

/// The schema of a command of a batch. [`add_item_schemas`] replaces it by those of all commands.
pub struct ItemSchema;

impl PartialSchema for ItemSchema {
    fn schema() -> RefOr<Schema> {
        Schema::Object(ObjectBuilder::new().build()).into()
    }
}

impl ToSchema for ItemSchema {
    fn name() -> Cow<'static, str> {
        ITEM.into()
    }
}

/// Makes the schemas of the commands of a batch from those of the bodies of single commands.
pub fn add_item_schemas(schemas: &mut BTreeMap<String, RefOr<Schema>>) {
    let mut one_of = OneOfBuilder::new().description(Some("A command of a batch."));
    let mut discriminator = Discriminator::new("command");
    for kind in CommandKind::ALL {
        let Some(RefOr::T(Schema::Object(body))) = schemas.get(body_schema(kind)) else { continue };
        let mut item = body.clone();
        item.description = Some(format!("The command `{}` in a batch.", kind.name()));
        let name = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([kind.name()]));
        let name = name.description(Some("The name of the command."));
        item.properties.insert("command".to_owned(), name.into());
        item.required.push("command".to_owned());
        for field in ItemFields::of(kind).path {
            item.properties.insert((*field).to_owned(), path_schema(field).into());
            item.required.push((*field).to_owned());
        }
        item.properties.insert("idempotency_key".to_owned(), key_schema().into());
        let name = schema_name(kind);
        let reference = Ref::from_schema_name(&name);
        discriminator.mapping.insert(kind.name().to_owned(), reference.ref_location.clone());
        one_of = one_of.item(reference);
        schemas.insert(name, Schema::Object(item).into());
    }
    schemas.insert(ITEM.to_owned(), one_of.discriminator(Some(discriminator)).into());
}

fn path_schema(field: &str) -> ObjectBuilder {
    match field {
        "version" => {
            let version = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
            version
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
                .description(Some("The `version` of the transaction."))
        }
        _ => {
            let id = ObjectBuilder::new().schema_type(Type::String);
            let description = if field == "hold_id" { "The id of the hold." } else { "The account." };
            id.format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid))).description(Some(description))
        }
    }
}

fn key_schema() -> ObjectBuilder {
    let key = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[!-~]{1,255}$"));
    key.description(Some("Makes retries safe. Commands of an `atomic` batch have none."))
}

/// The name of a command's schema in a batch.
fn schema_name(kind: CommandKind) -> String {
    let words = kind.name().split('_').map(|word| word[..1].to_uppercase() + &word[1..]);
    format!("Batch{}", words.collect::<String>())
}

/// The schema of the single command's body.
fn body_schema(kind: CommandKind) -> &'static str {
    match kind {
        CommandKind::Open => "OpenAccount",
        CommandKind::Deposit | CommandKind::Withdraw => "MoveMoney",
        CommandKind::Transfer => "TransferMoney",
        CommandKind::Freeze | CommandKind::Unfreeze | CommandKind::Close => "ChangeAccountStatus",
        CommandKind::PlaceHold => "PlaceHold",
        CommandKind::CaptureHold => "CaptureHold",
        CommandKind::VoidHold => "VoidHold",
        CommandKind::Reverse => "ReverseTransaction",
        CommandKind::SetLimits => "SetLimits",
    }
}
