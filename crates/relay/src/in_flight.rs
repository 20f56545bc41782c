//! The messages of one publishing attempt that the NATS server has not acknowledged yet.

use std::{collections::VecDeque, time::Duration};

use tokio::time::{Instant, timeout};

use super::{
    jetstream::{PublishReply, Replies},
    log_reader::LogPosition,
};

/// How long a shutdown waits for the outstanding acknowledgements.
const DRAIN_MS_MAX: u64 = 2_000;

/// The state of one publishing attempt.
pub(super) struct InFlight {
    /// The position of the last event that was sent.
    pub(super) sent: i64,
    /// The events that were sent and not acknowledged, in the order of their positions.
    pending: VecDeque<LogPosition>,
    /// The last event that the stream is known to contain.
    pub(super) stored: LogPosition,
    /// The time of the last reply, or the time at which the first message was sent after an idle period.
    pub(super) replied_at: Instant,
}

impl InFlight {
    /// Starts after the event at `stored`, the last one in the stream.
    pub(super) fn new(stored: LogPosition) -> Self {
        Self { sent: stored.position, pending: VecDeque::new(), stored, replied_at: Instant::now() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn push(&mut self, event: LogPosition) {
        self.sent = event.position;
        self.pending.push_back(event);
    }

    /// Marks all events up to `position` as stored. Returns how many of them were pending.
    pub(super) fn acknowledge(&mut self, position: i64) -> u64 {
        let before = self.pending.len();
        while let Some(event) = self.pending.pop_front_if(|event| event.position <= position) {
            self.stored = event;
        }
        (before - self.pending.len()) as u64
    }

    /// Waits for the outstanding acknowledgements, up to a time limit.
    pub(super) async fn drain(&mut self, replies: &mut Replies) {
        let draining = async {
            while !self.pending.is_empty() {
                let Ok(PublishReply::Stored(position)) = replies.next().await else { return };
                self.acknowledge(position);
            }
        };
        // After the time limit, the next relay finds the remaining messages in the stream.
        let _ = timeout(Duration::from_millis(DRAIN_MS_MAX), draining).await;
    }
}
