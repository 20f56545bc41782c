//! Splits the bytes of an input into lines. The pieces can end anywhere, also inside a line or a UTF-8 character.

/// The longest line that the service accepts, without its end.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// What is kept of a line that is too long: one byte too many, and a carriage return that may be a part of the line's end.
const LONG_LINE_BYTES: usize = LINE_BYTES_MAX + 2;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A line that is not blank, without its end and without surrounding spaces; or the beginning of one that is too long.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RawLine {
    /// The number in the file, from 1. Blank lines count here.
    pub number: u64,
    pub text: Vec<u8>,
}

/// The line that has begun.
///
/// Of a line that is too long only so much is kept that the service refuses it. It is not trimmed: its beginning could be a blank
/// line or a valid command.
#[derive(Default)]
pub(crate) struct LineSplitter {
    text: Vec<u8>,
    ended_lines: u64,
}

impl LineSplitter {
    /// The lines that end within these bytes.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Vec<RawLine> {
        let mut lines = Vec::new();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..end]);
            lines.extend(self.end_line());
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
        lines
    }

    /// The last line, if the input does not end with the end of a line.
    pub(crate) fn finish(&mut self) -> Option<RawLine> {
        if self.text.is_empty() { None } else { self.end_line() }
    }

    /// The number of lines that have ended.
    pub(crate) fn ended_lines(&self) -> u64 {
        self.ended_lines
    }

    fn extend(&mut self, bytes: &[u8]) {
        let free = (BYTE_ORDER_MARK.len() + LONG_LINE_BYTES).saturating_sub(self.text.len());
        self.text.extend_from_slice(&bytes[..bytes.len().min(free)]);
    }

    fn end_line(&mut self) -> Option<RawLine> {
        let mut text = std::mem::take(&mut self.text);
        self.ended_lines += 1;
        if self.ended_lines == 1 && text.starts_with(BYTE_ORDER_MARK) {
            text.drain(..BYTE_ORDER_MARK.len());
        }
        if text.strip_suffix(b"\r").unwrap_or(&text).len() > LINE_BYTES_MAX {
            text.truncate(LONG_LINE_BYTES);
            return Some(RawLine { number: self.ended_lines, text });
        }
        let trimmed = text.trim_ascii();
        if trimmed.len() < text.len() {
            text = trimmed.to_vec();
        }
        (!text.is_empty()).then_some(RawLine { number: self.ended_lines, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> Vec<(u64, Vec<u8>)> {
        let mut splitter = LineSplitter::default();
        let mut lines: Vec<RawLine> = pieces.iter().flat_map(|piece| splitter.push(piece)).collect();
        lines.extend(splitter.finish());
        lines.into_iter().map(|line| (line.number, line.text)).collect()
    }

    #[test]
    fn a_line_is_the_same_wherever_its_bytes_are_cut() {
        let text = "\u{feff}{\"reference\": \"Zürich\"}\r\n\n  {\"a\": 1} \n{\"b\": 2}".as_bytes();
        let expected = split(&[text]);
        let lines = [(1, "{\"reference\": \"Zürich\"}"), (3, "{\"a\": 1}"), (4, "{\"b\": 2}")];
        assert_eq!(expected, lines.map(|(number, text)| (number, text.as_bytes().to_vec())));
        for cut in 0..=text.len() {
            assert_eq!(split(&[&text[..cut], &text[cut..]]), expected, "cut at {cut}");
        }
    }

    #[test]
    fn blank_lines_are_counted_but_not_returned() {
        assert_eq!(split(&[b"\n \r\n\t\na"]), [(4, b"a".to_vec())]);
        assert_eq!(split(&[b""]), []);
        assert_eq!(split(&[b"\n"]), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_kept_although_its_beginning_is_blank() {
        let valid = b"{\"a\":1}";
        let spaces = |count| vec![b' '; count];
        let long = [
            [valid, &spaces(LINE_BYTES_MAX)[..], b"garbage"].concat(),
            [&spaces(LINE_BYTES_MAX)[..], valid].concat(),
            spaces(LINE_BYTES_MAX + 1),
            [&spaces(LINE_BYTES_MAX)[..], b"\r\r"].concat(),
            [BYTE_ORDER_MARK, &spaces(LINE_BYTES_MAX + 1)[..]].concat(),
        ];
        for (line, end) in long.iter().flat_map(|line| [(line, "\n"), (line, "\r\n"), (line, "")]) {
            let found = split(&[line, end.as_bytes()]);
            let [(1, kept)] = &found[..] else { panic!("{} lines", found.len()) };
            // The service does not count one carriage return.
            assert!(kept.strip_suffix(b"\r").unwrap_or(kept).len() > LINE_BYTES_MAX, "{}", kept.len());
        }
        let fitting = [&valid[..], &spaces(LINE_BYTES_MAX - valid.len())[..]].concat();
        for line in [fitting.clone(), [BYTE_ORDER_MARK, &fitting[..]].concat()] {
            for end in ["\n", "\r\n", ""] {
                assert_eq!(split(&[&line, end.as_bytes()]), [(1, valid.to_vec())]);
            }
        }
        assert_eq!(split(&[&spaces(LINE_BYTES_MAX), b"\r\n"]), []);
    }

    #[test]
    fn of_a_line_that_is_too_long_two_bytes_too_many_are_kept() {
        let mut splitter = LineSplitter::default();
        for _ in 0..100 {
            assert_eq!(splitter.push(&[b'x'; LINE_BYTES_MAX]), []);
        }
        let lines = splitter.push(b"x\nshort\n");
        assert_eq!(lines.iter().map(|line| line.text.len()).collect::<Vec<_>>(), [LONG_LINE_BYTES, 5]);
    }
}
