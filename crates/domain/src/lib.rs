//! What the bank is: money, commands, events and the account they meet in.
//!
//! Pure: no I/O, no clock, no random numbers. Time, ids and the caller come in as data.

pub mod account;
pub mod channel;
pub mod command;
pub mod event;
mod event_type;
pub mod money;
pub mod transfer;
mod upcast;

pub use account::{Account, Book, Rejection, Status};
pub use channel::Channel;
pub use command::{Action, Command, Transfer};
pub use event::Event;
pub use event_type::EventType;
pub use money::{Amount, Currency};
