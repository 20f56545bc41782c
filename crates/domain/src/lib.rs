//! The domain: money, commands, events and the account that decides on commands.
//!
//! The crate is pure: no I/O, no clock, no random numbers. Times, ids and the caller come in as data.

pub mod account;
pub mod command;
mod decode;
pub mod event;
mod event_type;
pub mod money;
pub mod transfer;

pub use account::{Account, OpenedAccount, Rejection, Status};
pub use command::{AccountCommand, Channel, Command, Transfer};
pub use decode::DecodeError;
pub use event::Event;
pub use event_type::EventType;
pub use money::{Amount, Currency};
