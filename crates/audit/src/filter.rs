//! Which events a reader of the log wants.

use chrono::{DateTime, Utc};

use passbook_domain::EventType;

/// Which events of the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Of this type.
    pub event_type: Option<EventType>,
    /// Recorded at this time or later.
    pub since: Option<DateTime<Utc>>,
}

impl Filter {
    /// Whether the event is one of those wanted.
    pub(super) fn takes(&self, event_type: Option<EventType>, recorded_at: DateTime<Utc>) -> bool {
        self.event_type.is_none_or(|wanted| event_type == Some(wanted))
            && self.since.is_none_or(|since| recorded_at >= since)
    }

    /// Whether every event is.
    pub(super) fn takes_all(&self) -> bool {
        self.event_type.is_none() && self.since.is_none()
    }
}
