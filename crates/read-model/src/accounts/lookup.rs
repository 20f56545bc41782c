//! Look-ups of single accounts share statements: whoever asks while one is under way is answered by the next one, so
//! that many readers cost the database little more than one. There is no timer; a lone reader waits for nobody.

use std::collections::HashMap;

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use uuid::Uuid;

use super::{AccountView, live};
use crate::{Seen, Source};
use passbook_event_store::Partitions;

/// How many look-ups may wait, and how many share one statement.
const LOOKUPS_MAX: usize = 1_024;
const BATCH_LOOKUPS_MAX: usize = 256;

/// What the live generation says of an account; `None` while there is none.
type Answer = Option<Seen<Option<AccountView>>>;

/// The handle to the task that looks up, cheap to clone. It ends with its last clone.
#[derive(Clone)]
pub(crate) struct Lookups(mpsc::Sender<Lookup>);

struct Lookup {
    account_id: Uuid,
    answer: oneshot::Sender<Answer>,
}

impl Lookups {
    pub(crate) fn start(source: Source, partitions: Partitions, partition: i16) -> Self {
        let (sender, mut waiting) = mpsc::channel::<Lookup>(LOOKUPS_MAX);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(BATCH_LOOKUPS_MAX);
            while waiting.recv_many(&mut batch, BATCH_LOOKUPS_MAX).await > 0 {
                answer(&source, partitions, partition, batch.drain(..)).await;
            }
        });
        Self(sender)
    }

    /// The answer, or `None` where the statement failed: then each asks for itself, and learns why.
    pub(crate) async fn get(&self, account_id: Uuid) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Lookup { account_id, answer }).await.ok()?;
        answered.await.ok()
    }
}

async fn answer(source: &Source, partitions: Partitions, partition: i16, batch: impl Iterator<Item = Lookup>) {
    let batch: Vec<Lookup> = batch.collect();
    let mut ids: Vec<Uuid> = batch.iter().map(|lookup| lookup.account_id).collect();
    ids.sort_unstable();
    ids.dedup();
    let asked = source.asked_together();
    // Without an answer the senders are dropped, which says that the statement failed.
    let answered = timeout(asked.patience(), live(asked.pool, partitions, partition, &ids)).await;
    let Ok(Ok(seen)) = answered else { return };
    let known: Option<Seen<HashMap<Uuid, AccountView>>> =
        seen.map(|seen| seen.map(|views| views.into_iter().map(|view| (view.account_id, view)).collect()));
    for Lookup { account_id, answer } in batch {
        let view = |views: &HashMap<Uuid, AccountView>| views.get(&account_id).cloned();
        // A reader who hung up no longer listens.
        let _ = answer.send(known.as_ref().map(|known| Seen {
            value: view(&known.value),
            position: known.position.clone(),
            generation: known.generation,
        }));
    }
}
