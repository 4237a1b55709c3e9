//! The decoder of server-sent events (03 §4.1): bytes in, events out, no I/O.
//!
//! Invariant: how the bytes are cut into pieces never changes the events, also
//! inside a character or between CR and LF; memory is bounded by
//! [`MAX_EVENT`] plus one piece.

use bytes::{Buf, Bytes};

/// The longest line, and the longest event, in bytes.
pub const MAX_EVENT: usize = 16 * 1024 * 1024;

/// One dispatched event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The value of the `event:` line, empty when there was none.
    pub name: String,
    /// The `data:` lines, joined by line feeds. Invalid UTF-8 is replaced.
    pub data: String,
}

/// A line or an event grew past [`MAX_EVENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oversized;

/// Turns pieces of an event stream into events.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    /// The piece being read.
    piece: Bytes,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// The last byte was a CR: a LF that follows belongs to it.
    after_cr: bool,
    /// No line has ended yet: a byte order mark may stand in front.
    at_start: bool,
    name: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::with_limit(MAX_EVENT)
    }
}

impl Decoder {
    /// A decoder with another bound than [`MAX_EVENT`].
    pub fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            piece: Bytes::new(),
            line: Vec::new(),
            after_cr: false,
            at_start: true,
            name: Vec::new(),
            data: Vec::new(),
            has_data: false,
        }
    }

    /// Gives the next piece; the one before must have been read to its end, that
    /// is until [`Decoder::next_event`] gave `None`.
    pub fn feed(&mut self, piece: Bytes) {
        debug_assert!(self.piece.is_empty(), "the last piece is not read yet");
        self.piece = piece;
    }

    /// The next complete event, or `None` when the piece is used up. An event that
    /// the stream ends within is never dispatched.
    pub fn next_event(&mut self) -> Option<Result<Event, Oversized>> {
        while let Some(end) = self.end_of_line() {
            let first = std::mem::take(&mut self.at_start);
            // A line within one piece is read where it lies; only cut ones are copied.
            let mut line = self.piece.split_to(end);
            self.after_cr = self.piece.first() == Some(&b'\r');
            self.piece.advance(1);
            if !self.line.is_empty() {
                self.line.extend_from_slice(&line);
                line = Bytes::from(std::mem::take(&mut self.line));
            }
            if line.len() > self.limit {
                return Some(Err(Oversized));
            }
            let text = match line.strip_prefix(b"\xEF\xBB\xBF") {
                Some(rest) if first => rest,
                _ => &line,
            };
            if text.is_empty() {
                if let Some(event) = self.dispatch() {
                    return Some(Ok(event));
                }
            } else if self.field(text).is_err() {
                return Some(Err(Oversized));
            }
        }
        if self.line.len() + self.piece.len() > self.limit {
            return Some(Err(Oversized));
        }
        self.line.extend_from_slice(&self.piece);
        self.piece.clear();
        None
    }

    /// The offset of the next line end in the piece, after the LF of a CR LF.
    fn end_of_line(&mut self) -> Option<usize> {
        if self.after_cr && !self.piece.is_empty() {
            self.after_cr = false;
            if self.piece.first() == Some(&b'\n') {
                self.piece.advance(1);
            }
        }
        self.piece
            .iter()
            .position(|byte| matches!(byte, b'\n' | b'\r'))
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Oversized> {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = match colon {
            Some(0) => return Ok(()), // a comment
            Some(at) => {
                let value = &line[at + 1..];
                (&line[..at], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &b""[..]),
        };
        match name {
            b"data" => {
                if self.data.len() + value.len() >= self.limit {
                    return Err(Oversized);
                }
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                self.has_data = true;
            }
            b"event" => value.clone_into(&mut self.name),
            _ => {} // `id` and `retry` mean nothing here, others are to be ignored
        }
        Ok(())
    }

    fn dispatch(&mut self) -> Option<Event> {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        std::mem::take(&mut self.has_data).then(|| Event {
            name: text(name),
            data: text(data),
        })
    }
}

/// Bytes as text, without a copy when they are UTF-8.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events_of<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        limit: usize,
    ) -> Vec<Result<Event, Oversized>> {
        let mut decoder = Decoder::with_limit(limit);
        let mut found = Vec::new();
        for piece in pieces {
            decoder.feed(Bytes::copy_from_slice(piece));
            while let Some(event) = decoder.next_event() {
                let failed = event.is_err();
                found.push(event);
                if failed {
                    return found;
                }
            }
        }
        found
    }

    fn data_of(input: &str) -> Vec<String> {
        events_of([input.as_bytes()], MAX_EVENT)
            .into_iter()
            .map(|event| event.unwrap().data)
            .collect()
    }

    #[test]
    fn lines_may_end_in_any_of_three_ways() {
        assert_eq!(
            data_of("data: a\n\ndata: b\r\n\r\ndata: c\r\rdata: d\r\n\n"),
            ["a", "b", "c", "d"]
        );
    }

    #[test]
    fn fields_follow_the_standard() {
        for (input, expected) in [
            (": comment\ndata: x\n\n", vec!["x"]),
            ("data:x\n\n", vec!["x"]),
            ("data:  x\n\n", vec![" x"]),
            ("data: a\ndata: b\n\n", vec!["a\nb"]),
            ("data\n\n", vec![""]),
            ("data: a\ndata\n\n", vec!["a\n"]),
            ("id: 1\nretry: 5\ndata: x\nother: y\n\n", vec!["x"]),
            ("event: ping\n\n", vec![]),
            ("\n\n\n", vec![]),
            ("data: unfinished\n", vec![]),
            ("\u{feff}data: x\n\n", vec!["x"]),
            ("data: \u{feff}x\n\n", vec!["\u{feff}x"]),
        ] {
            assert_eq!(data_of(input), expected, "{input:?}");
        }
    }

    #[test]
    fn an_event_name_counts_for_one_event_only() {
        let found = events_of([&b"event: error\ndata: x\n\ndata: y\n\n"[..]], MAX_EVENT);
        let names: Vec<_> = found
            .iter()
            .map(|e| e.as_ref().unwrap().name.as_str())
            .collect();
        assert_eq!(names, ["error", ""]);
    }

    #[test]
    fn broken_utf8_is_replaced_and_not_fatal() {
        let found = events_of([&b"data: a\xFFb\n\n"[..]], MAX_EVENT);
        assert_eq!(found[0].as_ref().unwrap().data, "a\u{fffd}b");
    }

    #[test]
    fn lines_and_events_past_the_limit_are_refused_however_they_come() {
        let long = format!("data: {}\n\n", "x".repeat(64));
        let many = "data: xxxxxxxxxx\n".repeat(8);
        let endless = "x".repeat(65);
        for input in [&long, &many, &endless] {
            for size in [1, 7, input.len()] {
                let found = events_of(input.as_bytes().chunks(size), 32);
                assert_eq!(found.last(), Some(&Err(Oversized)), "{size}");
            }
        }
        assert_eq!(events_of([&b"data: fits in\n\n"[..]], 32).len(), 1);
    }

    /// The whole input, read the slow and obvious way.
    fn plainly(input: &[u8]) -> Vec<Event> {
        let text = String::from_utf8_lossy(input)
            .replace("\r\n", "\n")
            .replace('\r', "\n");
        let mut lines: Vec<&str> = text.split('\n').collect();
        lines.pop(); // what no line end follows
        let (mut events, mut name, mut data) = (Vec::new(), "", Vec::new());
        for (number, line) in lines.into_iter().enumerate() {
            let line = match number {
                0 => line.strip_prefix('\u{feff}').unwrap_or(line),
                _ => line,
            };
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "data" => data.push(value),
                "event" => name = value,
                _ if line.is_empty() => {
                    if !data.is_empty() {
                        events.push(Event {
                            name: name.to_owned(),
                            data: data.join("\n"),
                        });
                    }
                    (name, data) = ("", Vec::new());
                }
                _ => {}
            }
        }
        events
    }

    /// Text in which line ends, fields and wide characters are frequent.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let token = prop_oneof![
            Just("\n".to_owned()),
            Just("\r".to_owned()),
            Just("\r\n".to_owned()),
            Just("\n\n".to_owned()),
            Just("data: ".to_owned()),
            Just("data:".to_owned()),
            Just("data".to_owned()),
            Just("event: error".to_owned()),
            Just(": note".to_owned()),
            Just("\u{feff}".to_owned()),
            Just("é🦀".to_owned()),
            "[a-z:{}\" ]{0,6}",
        ];
        prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn the_cutting_into_pieces_never_matters(
            input in streams(),
            cuts in prop::collection::vec(0usize..200, 0..20),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
            cuts.sort_unstable();
            cuts.push(input.len());
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&input[from..cut]);
                from = cut;
            }
            let found: Vec<Event> = events_of(pieces, MAX_EVENT).into_iter().map(Result::unwrap).collect();
            prop_assert_eq!(&found, &plainly(&input));
        }

        #[test]
        fn any_bytes_are_read_without_harm(input in prop::collection::vec(any::<u8>(), 0..300)) {
            let whole = events_of([&input[..]], 64);
            let bytewise = events_of(input.chunks(1), 64);
            prop_assert_eq!(whole, bytewise);
        }
    }
}
