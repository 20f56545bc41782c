//! Where money is paid in or out. A closed list: a further channel is a new version of the events that name one.

use serde::{Deserialize, Serialize};

/// Where money was paid in or out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// At the counter.
    Branch,
    /// At a cash machine.
    Atm,
    /// By the customer's own order.
    Online,
}
