//! The limit of what one statement returns while its transaction holds a lock that others wait for.
//!
//! A server process that waits in the middle of a response, because the client is frozen and the buffers of the socket are full,
//! has no time limit: `idle_in_transaction_session_timeout` counts only after the response. A response that fits into the buffers
//! is sent at once, so the time limit then releases the lock.

use std::iter;

/// The bytes of one response. A Unix socket takes some 200 KB that the client does not read, and a TCP connection at least 100 KB.
pub const LOCKED_READ_BYTES_MAX: usize = 32 * 1024;
/// How many bytes a row of the log takes besides its `data`.
pub(crate) const EVENT_ROW_BYTES: i64 = 192;
/// How many events one statement reads under a lock, if their bytes do not end it earlier.
pub(crate) const LOCKED_READ_EVENTS_MAX: i64 = LOCKED_READ_BYTES_MAX as i64 / EVENT_ROW_BYTES;

/// How many rows of at most `row_bytes` one statement may return under a lock.
pub const fn rows_max(row_bytes: usize) -> usize {
    LOCKED_READ_BYTES_MAX / row_bytes
}

/// Splits `items` into slices for one statement each: a slice has at most [`LOCKED_READ_BYTES_MAX`], or a single item.
pub fn slices_by_bytes<T>(items: &[T], bytes: impl Fn(&T) -> i64) -> impl Iterator<Item = &[T]> {
    let mut rest = items;
    iter::from_fn(move || {
        let mut sum = 0;
        let fits = |item: &T| {
            sum += bytes(item);
            sum <= LOCKED_READ_BYTES_MAX as i64
        };
        let fitting = rest.iter().map(fits).take_while(|fits| *fits).count();
        let (slice, after) = rest.split_at_checked(fitting.max(1))?;
        rest = after;
        Some(slice)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_have_at_most_the_bytes_of_one_response_or_one_item() {
        let all = LOCKED_READ_BYTES_MAX as i64;
        let slices = |items: &[i64]| slices_by_bytes(items, |bytes| *bytes).map(<[i64]>::to_vec).collect::<Vec<_>>();
        assert!(slices(&[]).is_empty());
        assert_eq!(slices(&[1, all - 1, 1]), [vec![1, all - 1], vec![1]]);
        assert_eq!(slices(&[2 * all, 3 * all, 1, 2]), [vec![2 * all], vec![3 * all], vec![1, 2]]);
    }
}
