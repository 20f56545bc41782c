//! The view of holds: one row per hold, active or over, and what the holds of each currency set aside.

mod check;
pub(crate) mod projection;
mod queries;
mod row;
mod view;

pub use queries::HoldFilter;
pub use view::HoldView;
