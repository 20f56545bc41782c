//! How far one attempt to fill a stream has come.

use std::{collections::VecDeque, time::Duration};

use tokio::time::{Instant, timeout};

use super::{
    log::Place,
    stream::{Answer, Answers},
};

/// How long those in flight at the end may take.
const LAST_ANSWERS_MS_MAX: u64 = 2_000;

/// What one attempt has sent, and what of it is in the stream.
pub(super) struct Progress {
    pub(super) sent: i64,
    /// What was sent and is not known to be in the stream, in its order.
    in_flight: VecDeque<Place>,
    pub(super) stored: Place,
    /// When the last answer came, or there was nothing to answer.
    pub(super) answered_at: Instant,
}

impl Progress {
    pub(super) fn from(place: Place) -> Self {
        Self { sent: place.position, in_flight: VecDeque::new(), stored: place, answered_at: Instant::now() }
    }

    pub(super) fn send(&mut self, place: Place) {
        self.sent = place.position;
        self.in_flight.push_back(place);
    }

    /// Everything up to there is in the stream; how many of them were not known to be.
    pub(super) fn store(&mut self, at: i64) -> u64 {
        let before = self.in_flight.len();
        while let Some(place) = self.in_flight.pop_front_if(|place| place.position <= at) {
            self.stored = place;
        }
        (before - self.in_flight.len()) as u64
    }

    /// Waits for the answers to what is in flight, as long as it may take.
    pub(super) async fn drain(&mut self, answers: &mut Answers) {
        let draining = async {
            while !self.in_flight.is_empty() {
                let Ok(Answer::Stored(at)) = answers.next().await else { return };
                self.store(at);
            }
        };
        // What comes later is found in the stream by the next one.
        let _ = timeout(Duration::from_millis(LAST_ANSWERS_MS_MAX), draining).await;
    }
}
