//! The event store: an append-only log in Postgres, with streams, versions, positions and bytes. It has no banking rules.
//!
//! [`log`] appends at the head of a partition, [`unknown_outcome`] resolves an append that got no response, and [`stream`]
//! loads streams for the write side. [`reader`] reads pages, [`scan`] reads everything for verification, and [`import`] copies
//! events between logs. [`hash_chain`] computes event hashes. [`Partitions`] maps streams to partitions, and [`partition_count`]
//! stores their number. [`moment`] makes a moment of the log final, and [`old_keys`] deletes idempotency keys by age.
//! [`PrimaryConnector`] connects to the server that accepts writes.
//! [`locked_read`] limits what is read while a lock is held, and [`confirmation`] makes sure that standbys have what is read.

pub mod confirmation;
mod event;
mod failure;
pub mod hash_chain;
pub mod import;
pub mod locked_read;
pub mod log;
pub mod moment;
pub mod old_keys;
mod outage_log;
mod partition;
pub mod partition_count;
mod position;
mod primary;
mod primary_pool;
mod primary_search;
pub mod reader;
pub mod reversals;
pub mod scan;
mod server;
mod session;
pub mod stream;
pub mod timestamp;
pub mod unknown_outcome;

pub use event::{EventWithHash, NewEvent, RecordedEvent, StreamVersion};
pub use failure::{StorageFailure, sqlstate};
pub use hash_chain::Hash;
pub use outage_log::{in_words, log_if_unreachable, log_query_if_unreachable};
pub use partition::{PARTITIONS_MAX, Partitions};
pub use position::{InvalidPosition, Position, partition_number};
pub use primary::{FailoverWatch, PrimaryConnector, VerifiedPrimary, with_timeout};
pub use server::NotPrimary;
pub use session::{OtherSettings, check_session, checked_pool_options};
