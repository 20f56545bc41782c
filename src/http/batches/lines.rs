//! Splits a body into lines while it arrives. At most one line is buffered, and none that is too long.

use std::mem;

use axum::body::{Body, BodyDataStream, Bytes};
use futures_util::StreamExt;

use crate::http::extract::body::UTF8_BOM;

/// The most bytes of a line, without its end.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// The lines of a body. A byte order mark before the first line and a carriage return at the end of a line are ignored.
#[derive(Debug)]
pub struct Lines {
    body: BodyDataStream,
    /// The bytes that have arrived and belong to no line yet.
    chunk: Bytes,
    /// The beginning of a line whose end has not arrived.
    partial: Vec<u8>,
    /// The current line is too long, and its bytes are dropped.
    skips_line: bool,
    is_first_line: bool,
    has_ended: bool,
}

/// A line of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line with something else than white space.
    Text(Bytes),
    /// A line of white space.
    Empty,
    /// A line of more than [`LINE_BYTES_MAX`].
    TooLong,
    /// The body broke off within a line.
    Incomplete,
}

impl Lines {
    /// The lines of `body`.
    pub fn new(body: Body) -> Self {
        Self {
            body: body.into_data_stream(),
            chunk: Bytes::new(),
            partial: Vec::new(),
            skips_line: false,
            is_first_line: true,
            has_ended: false,
        }
    }

    /// The next line; `None` after the last one. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Line> {
        loop {
            if let Some(line) = self.buffered() {
                return Some(line);
            }
            if self.has_ended {
                return None;
            }
            match self.body.next().await {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(_)) => {
                    self.has_ended = true;
                    let is_within_line = self.skips_line || !self.partial.is_empty();
                    return is_within_line.then_some(Line::Incomplete);
                }
                None => {
                    self.has_ended = true;
                    // The last line needs no end.
                    let is_line = self.skips_line || !self.partial.is_empty();
                    return is_line.then(|| self.end_line(Bytes::new()));
                }
            }
        }
    }

    /// Waits until some of the body has arrived, or its end.
    pub async fn wait_for_first_bytes(&mut self) {
        match self.body.next().await {
            Some(Ok(chunk)) => self.chunk = chunk,
            Some(Err(_)) | None => self.has_ended = true,
        }
    }

    /// Reads the rest of the body and drops it.
    pub async fn discard(&mut self) {
        while let Some(Ok(_)) = self.body.next().await {}
    }

    /// The next line, if its end has arrived.
    pub fn buffered(&mut self) -> Option<Line> {
        if let Some(at) = self.chunk.iter().position(|byte| *byte == b'\n') {
            let rest = self.chunk.split_off(at + 1);
            let mut end = mem::replace(&mut self.chunk, rest);
            end.truncate(at);
            return Some(self.end_line(end));
        }
        let chunk = mem::take(&mut self.chunk);
        // A carriage return at the end does not count.
        self.skips_line |= self.partial.len() + chunk.len() > LINE_BYTES_MAX + UTF8_BOM.len() + 1;
        match self.skips_line {
            true => self.partial = Vec::new(),
            false => self.partial.extend_from_slice(&chunk),
        }
        None
    }

    /// The line that ends with these bytes.
    fn end_line(&mut self, end: Bytes) -> Line {
        let is_first = mem::take(&mut self.is_first_line);
        let partial = mem::take(&mut self.partial);
        if mem::take(&mut self.skips_line) {
            return Line::TooLong;
        }
        let mut line = match partial.is_empty() {
            true => end,
            false => [&partial[..], &end].concat().into(),
        };
        if is_first && line.starts_with(UTF8_BOM) {
            line = line.slice(UTF8_BOM.len()..);
        }
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        match line {
            line if line.len() > LINE_BYTES_MAX => Line::TooLong,
            line if line.trim_ascii().is_empty() => Line::Empty,
            line => Line::Text(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use axum::body::Body;
    use futures_util::stream;

    use super::*;

    /// The lines of a body that arrives in these chunks, and breaks off after them if `is_cut`.
    async fn lines(chunks: Vec<Vec<u8>>, is_cut: bool) -> Vec<Line> {
        let cut = is_cut.then(|| Err(io::Error::from(io::ErrorKind::UnexpectedEof)));
        let chunks = chunks.into_iter().map(|chunk| Ok(Bytes::from(chunk))).chain(cut);
        let mut lines = Lines::new(Body::from_stream(stream::iter(chunks)));
        let mut found = Vec::new();
        while let Some(line) = lines.next().await {
            found.push(line);
        }
        found
    }

    fn text(text: &str) -> Line {
        Line::Text(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[tokio::test]
    async fn lines_do_not_depend_on_the_chunks_of_the_body() {
        let body = "\u{feff}one\r\n\n \t\r\ntwo \u{1f600}\n\u{feff}three\nlast".as_bytes();
        let expected =
            [text("one"), Line::Empty, Line::Empty, text("two \u{1f600}"), text("\u{feff}three"), text("last")];
        for size in 1..=body.len() {
            let chunks = body.chunks(size).map(<[u8]>::to_vec).collect();
            assert_eq!(lines(chunks, false).await, expected, "chunks of {size} bytes");
        }
        assert_eq!(lines(vec![], false).await, []);
        assert_eq!(lines(vec![b"\n".to_vec()], false).await, [Line::Empty]);
    }

    #[tokio::test]
    async fn line_above_the_limit_is_dropped_and_the_next_one_is_read() {
        let long = |bytes: usize, end: &str| [vec![b'a'; bytes], end.as_bytes().to_vec()].concat();
        let is_too_long = |line: &Line| *line == Line::TooLong;
        for size in [1_000, LINE_BYTES_MAX, LINE_BYTES_MAX + 1, 10 * LINE_BYTES_MAX] {
            for end in ["\n", "\r\n"] {
                let body = [long(LINE_BYTES_MAX, end), long(LINE_BYTES_MAX + 1, end), long(9, "")].concat();
                let chunks = body.chunks(size).map(<[u8]>::to_vec).collect();
                let found = lines(chunks, false).await;
                let expected = [false, true, false];
                assert_eq!(found.iter().map(is_too_long).collect::<Vec<_>>(), expected, "chunks of {size} bytes");
            }
        }
        let endless = (0..100).map(|_| vec![b'a'; LINE_BYTES_MAX]).collect();
        assert_eq!(lines(endless, false).await, [Line::TooLong]);
    }

    #[tokio::test]
    async fn line_without_its_end_is_incomplete_if_the_body_breaks_off() {
        let body = "one\n\u{e4}".as_bytes();
        for cut in 0..=body.len() {
            let found = lines(vec![body[..cut].to_vec()], true).await;
            let expected: &[Line] = match cut {
                0 => &[],
                1..=3 => &[Line::Incomplete],
                4 => &[text("one")],
                _ => &[text("one"), Line::Incomplete],
            };
            assert_eq!(found, expected, "cut after {cut} bytes");
        }
    }
}
