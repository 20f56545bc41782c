//! The domain: money, commands, events and the account that decides on commands.
//!
//! The crate is pure: no I/O, no clock, no random numbers. Times, ids and the caller come in as data.

pub mod account;
pub mod books;
pub mod command;
mod decode;
pub mod event;
mod event_type;
pub mod holds;
pub mod limits;
pub mod metadata;
pub mod money;
pub mod other_event;
mod rejection;
pub mod reversal;
mod time;
pub mod transfer;

pub use account::{Account, OpenedAccount, Status};
pub use command::{AccountCommand, Channel, Command, Transfer};
pub use decode::DecodeError;
pub use event::Event;
pub use event_type::{Aggregate, EventType};
pub use holds::{Hold, HoldStatus, Holds};
pub use limits::{LimitName, Limits, Usage};
pub use metadata::Metadata;
pub use money::{Amount, Currency};
pub use other_event::OtherEvent;
pub use rejection::Rejection;
