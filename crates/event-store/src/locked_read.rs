//! The limit of what one statement returns while its transaction holds a lock that others wait for.
//!
//! A server process that waits in the middle of a response, because the client is frozen and the buffers of the socket are full,
//! has no time limit: `idle_in_transaction_session_timeout` counts only after the response. A response that fits into the buffers
//! is sent at once, so the time limit then releases the lock.

/// The bytes of one response. A Unix socket takes some 200 KB that the client does not read, and a TCP connection at least 100 KB.
pub const LOCKED_READ_BYTES_MAX: usize = 32 * 1024;
/// How many bytes a row of the log takes besides its `data`.
pub(crate) const EVENT_ROW_BYTES: i64 = 192;
/// How many events one statement reads under a lock, if their bytes do not end it earlier.
pub(crate) const LOCKED_READ_EVENTS_MAX: i64 = LOCKED_READ_BYTES_MAX as i64 / EVENT_ROW_BYTES;
/// How many recorded keys one statement returns under a lock. A key takes up to 2 KB, with a long caller and the receipt of a
/// transfer.
pub(crate) const LOCKED_READ_KEYS_MAX: i64 = rows_max(2 * 1024) as i64;

/// How many rows of at most `row_bytes` one statement may return under a lock.
pub const fn rows_max(row_bytes: usize) -> usize {
    LOCKED_READ_BYTES_MAX / row_bytes
}
