//! The event log as clients read it: pages of events, and a feed of new events as Server-Sent Events. A client continues at a
//! cursor, which also detects that the log was replaced by another history.

mod cursor;
mod error;
pub mod feed;
mod reader;
mod record;

pub use cursor::{Cursor, CursorParam};
pub use error::{Error, InvalidCursor, InvalidCursorPosition};
pub use reader::{EventReader, LogPage};
pub use record::{EventFilter, EventRecord, LogHead};
