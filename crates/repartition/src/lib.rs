//! Copies a log into a new log with more partitions, while a service still uses the old one.
//!
//! Each page of events is copied in one transaction together with its progress, then read back and compared. The last step runs
//! while the old log is locked. The new number of partitions is a multiple of the old one, so each new partition gets the events
//! of exactly one old partition. Their order and the order of their times stay the same.

mod compare;
mod error;
mod keys;
mod projector_set;
mod repartition;
mod reversals;
mod session;

pub use error::Error;
pub use projector_set::ProjectorSet;
pub use repartition::{CopiedLog, Repartition};
