//! Looks up the ledger accounts of reversed movements. A reversal names its movement, and not the channel or the kind of it.

use std::collections::HashMap;

use serde::{Deserialize, de::IntoDeserializer};
use sqlx::{PgConnection, Result};

use crate::decoded_event::cannot_apply;
use passbook_domain::{Channel, EventType, books::LedgerAccount};
use passbook_event_store::{
    StreamVersion,
    stream::{TypeAndMember, find_type_and_member},
};

/// The member of the data of a deposit or a withdrawal that names its channel.
const CHANNEL: &str = "channel";

/// The ledger account of each of these movements. It is read from the log, because no view has it in all shapes.
pub(crate) async fn read_originals(
    connection: &mut PgConnection,
    partition: i16,
    movements: &[StreamVersion],
) -> Result<HashMap<StreamVersion, LedgerAccount>> {
    let found = find_type_and_member(connection, partition, movements, CHANNEL).await?;
    let account = |(movement, found): (StreamVersion, TypeAndMember)| match ledger_account(&found) {
        Some(account) => Ok((movement, account)),
        None => Err(cannot_apply(format!(
            "version {} of account {} is reversed and is no movement of a ledger account",
            movement.version, movement.stream_id
        ))),
    };
    found.into_iter().map(account).collect()
}

fn ledger_account(found: &TypeAndMember) -> Option<LedgerAccount> {
    let channel = |name: &str| Channel::deserialize(name.into_deserializer()).map_err(|_: serde::de::value::Error| ());
    let channel = found.member.as_deref().map(channel).transpose().ok()?;
    LedgerAccount::of_movement(EventType::from_name(&found.event_type)?, channel)
}
