//! Compares the view of holds with the log.

use futures_util::{FutureExt, TryStreamExt, future::BoxFuture};
use sqlx::{PgConnection, Result, query_file_as, types::Json};
use uuid::Uuid;

use super::row::{AccountHolds, Columns, HoldRow, HoldTexts};
use crate::{
    decoded_event::DecodedEvent,
    projection::{Check, Detail, Mismatch, ViewGeneration},
    row_set_hash::ExpectedRows,
};
use passbook_domain::{HoldStatus, Metadata};

/// The holds of each account that follow from its events.
pub(super) struct HoldsCheck(ExpectedRows<AccountHolds>);

impl HoldsCheck {
    pub(super) fn new(detail: Detail) -> Self {
        Self(ExpectedRows::new(detail))
    }
}

/// A part of a row. The texts are final when the hold is placed, and the rest is final when its end is recorded.
#[derive(Hash)]
enum Part {
    Row(HoldRow),
    Texts(i64, HoldTexts),
}

impl Check for HoldsCheck {
    fn fold(&mut self, decoded: &DecodedEvent) {
        if decoded.recorded.version > 1 && decoded.event.own_hold().is_none() {
            return;
        }
        self.0.fold(decoded, |holds| {
            // In a log that passes verification each event belongs to a hold that was placed.
            let change = holds.evolve(decoded).ok().flatten()?;
            let texts = change.texts.map(|texts| Part::Texts(change.row.version, texts));
            texts.or_else(|| Some(Part::Row(change.row)).filter(|_| change.row.status != HoldStatus::Active))
        });
    }

    fn compare<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        view: ViewGeneration,
        only: Option<&'a [Uuid]>,
    ) -> BoxFuture<'a, Result<Option<Mismatch>>> {
        async move {
            let mut actual = self.0.actual_rows();
            let mut rows =
                query_file_as!(Columns, "src/views/holds/all.sql", view.partition, view.generation, only as _)
                    .fetch(connection);
            while let Some(columns) = rows.try_next().await? {
                let account_id = columns.account_id;
                let (row, texts) = columns.row()?;
                actual.add(account_id, Part::Texts(row.version, texts));
                actual.add(account_id, Part::Row(row));
            }
            let active = |holds: &AccountHolds| holds.rows().map(Part::Row).collect::<Vec<_>>();
            Ok(self.0.mismatch(&actual, "holds", active))
        }
        .boxed()
    }
}
