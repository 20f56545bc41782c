//! Keeps the view of movements: one row for each event that moves money.

use std::{
    collections::{BTreeMap, HashSet},
    num::NonZeroUsize,
};

use futures_util::{FutureExt, future::BoxFuture};
use lru::LruCache;
use sqlx::{PgConnection, Result, query_file};
use uuid::Uuid;

use super::{
    super::projection::{Applicable, Check, Place, Projection},
    Movement,
    check::TransactionsCheck,
    movement,
};

/// How many accounts' balances the projector holds between batches.
const HELD_BALANCES_MAX: NonZeroUsize = NonZeroUsize::new(100_000).expect("is not zero");

/// Keeps the view.
pub(in crate::read_model) struct Transactions {
    balances: LruCache<Uuid, i64>,
}

impl Default for Transactions {
    fn default() -> Self {
        Self { balances: LruCache::new(HELD_BALANCES_MAX) }
    }
}

impl Projection for Transactions {
    fn name(&self) -> &'static str {
        "transactions"
    }

    fn schema_version(&self) -> i16 {
        1
    }

    fn apply<'a>(
        &'a mut self,
        connection: &'a mut PgConnection,
        place: Place,
        events: &'a [Applicable],
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let moves: Vec<(&Applicable, Movement<'_>)> =
                events.iter().filter_map(|applicable| Some((applicable, movement(&applicable.event)?))).collect();
            let mut balances = self.balances_of(connection, place, &moves).await?;
            let mut after = Vec::with_capacity(moves.len());
            for (applicable, moved) in &moves {
                let balance = balances.entry(applicable.recorded.stream_id).or_default();
                *balance += moved.kind.sign() * moved.amount;
                after.push(*balance);
            }
            insert(connection, place, &moves, &after).await?;
            for (account_id, balance) in balances {
                self.balances.put(account_id, balance);
            }
            Ok(())
        }
        .boxed()
    }

    fn forget(&mut self) {
        self.balances.clear();
    }

    fn check(&self) -> Box<dyn Check> {
        Box::<TransactionsCheck>::default()
    }
}

impl Transactions {
    /// The balances before `moves`: those held, and the others in one statement.
    async fn balances_of(
        &mut self,
        connection: &mut PgConnection,
        place: Place,
        moves: &[(&Applicable, Movement<'_>)],
    ) -> Result<BTreeMap<Uuid, i64>> {
        let mut balances = BTreeMap::new();
        let mut missing = HashSet::new();
        for (applicable, _) in moves {
            let account_id = applicable.recorded.stream_id;
            match self.balances.get(&account_id) {
                Some(balance) => drop(balances.insert(account_id, *balance)),
                None => drop(missing.insert(account_id)),
            }
        }
        if !missing.is_empty() {
            let missing: Vec<Uuid> = missing.into_iter().collect();
            let read =
                query_file!("src/read_model/transactions/balances.sql", place.partition, place.generation, &missing)
                    .fetch_all(connection)
                    .await?;
            balances.extend(read.into_iter().map(|row| (row.account_id, row.balance_after)));
        }
        Ok(balances)
    }
}

async fn insert(
    connection: &mut PgConnection,
    place: Place,
    moves: &[(&Applicable, Movement<'_>)],
    balances_after: &[i64],
) -> Result<()> {
    if moves.is_empty() {
        return Ok(());
    }
    query_file!(
        "src/read_model/transactions/insert.sql",
        place.partition,
        place.generation,
        &moves.iter().map(|(at, _)| at.recorded.stream_id).collect::<Vec<_>>(),
        &moves.iter().map(|(at, _)| at.recorded.version).collect::<Vec<_>>(),
        &moves.iter().map(|(_, moved)| moved.kind.as_str()).collect::<Vec<_>>() as _,
        &moves.iter().map(|(_, moved)| moved.amount).collect::<Vec<_>>(),
        balances_after,
        &moves.iter().map(|(_, moved)| moved.transfer_id).collect::<Vec<_>>() as _,
        &moves.iter().map(|(_, moved)| moved.counterparty).collect::<Vec<_>>() as _,
        &moves.iter().map(|(_, moved)| moved.reference).collect::<Vec<_>>() as _,
        &moves.iter().map(|(at, _)| at.recorded.recorded_at).collect::<Vec<_>>(),
        &moves.iter().map(|(at, _)| at.recorded.id).collect::<Vec<_>>(),
    )
    .execute(connection)
    .await?;
    Ok(())
}
