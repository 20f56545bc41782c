//! The lines that have no result yet, in the order of the file. After an interruption they are sent again.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::key::Line;

/// The largest number of lines without a result. The service has at most 512 of them in flight; the others are on their way.
const LINES_MAX: usize = 8_192;
/// The largest size of the lines without a result; one more block of the input can be added.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// The size from which a piece of the request is sent.
const PIECE_BYTES: usize = 64 * 1024;

/// The lines that have no result yet. The first `sent` of them are sent in the present request.
#[derive(Default)]
pub(crate) struct Window {
    lines: VecDeque<Line>,
    sent: usize,
    bytes: usize,
}

impl Window {
    pub(crate) fn push(&mut self, block: Vec<Line>) {
        self.bytes += block.iter().map(|line| line.text.len()).sum::<usize>();
        self.lines.extend(block);
    }

    /// Starts a new request: no line is sent in it.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// The next piece of the request: one line, or as many as there are up to a size.
    pub(crate) fn next_piece(&mut self, has_many_lines: bool) -> Bytes {
        let bytes_max = if has_many_lines { PIECE_BYTES } else { 1 };
        let mut piece = BytesMut::new();
        while piece.len() < bytes_max
            && let Some(line) = self.lines.get(self.sent)
        {
            piece.extend_from_slice(&line.text);
            self.sent += 1;
        }
        piece.freeze()
    }

    /// Removes the first line, which has its result. `None` if it was not sent in this request.
    pub(crate) fn complete(&mut self) -> Option<Line> {
        self.sent = self.sent.checked_sub(1)?;
        let line = self.lines.pop_front()?;
        self.bytes -= line.text.len();
        Some(line)
    }

    /// The number of the first line without a result.
    pub(crate) fn first_number(&self) -> Option<u64> {
        self.lines.front().map(|line| line.number)
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.lines.len()
    }

    /// Whether a line without a result is sent in the present request.
    pub(crate) fn has_sent(&self) -> bool {
        self.sent > 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.lines.len() >= LINES_MAX || self.bytes >= BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key::KeyPrefix, line::RawLine};

    fn lines(numbers: std::ops::RangeInclusive<u64>) -> Vec<Line> {
        let line = |number| RawLine { number, text: format!("{{\"n\":{number}}}").into_bytes() };
        numbers.map(|number| KeyPrefix(Some("test".to_owned())).complete(line(number)).expect("a prefix")).collect()
    }

    #[test]
    fn lines_without_a_result_are_sent_again_in_order() {
        let mut window = Window::default();
        window.push(lines(1..=3));
        let first = window.next_piece(true);
        assert!(!window.has_unsent());
        assert_eq!(window.complete().map(|line| line.number), Some(1));
        window.push(lines(4..=4));
        window.rewind();
        assert!(!window.has_sent());
        let again = window.next_piece(true);
        assert_eq!(again.split(|byte| *byte == b'\n').count(), 4);
        assert!(again.starts_with(&first[first.len() / 3..]), "{again:?}");
        assert_eq!(window.first_number(), Some(2));
    }

    #[test]
    fn a_piece_has_one_line_or_many() {
        let mut window = Window::default();
        window.push(lines(1..=20_000));
        assert_eq!(window.next_piece(false).iter().filter(|byte| **byte == b'\n').count(), 1);
        assert!((PIECE_BYTES..PIECE_BYTES + 100).contains(&window.next_piece(true).len()));
    }

    #[test]
    fn a_result_for_a_line_that_was_not_sent_is_detected() {
        let mut window = Window::default();
        window.push(lines(1..=2));
        assert!(window.complete().is_none());
        window.next_piece(true);
        window.rewind();
        assert!(window.complete().is_none());
    }

    #[test]
    fn the_window_is_full_at_its_number_of_lines() {
        let mut window = Window::default();
        window.push(lines(1..=LINES_MAX as u64 - 1));
        assert!(!window.is_full());
        window.push(lines(LINES_MAX as u64..=LINES_MAX as u64));
        assert!(window.is_full());
    }
}
