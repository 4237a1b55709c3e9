//! What memory keeps of an output of any length: its beginning and its end,
//! with exact totals.
//!
//! Invariant: at most about [`KEPT_CHARS`] characters from each end are held
//! (some 70 KB of ASCII), however much was pushed; as long as no more than
//! that came, the text is whole. Enough for every cut of 04 §5.4.

/// Characters kept from the beginning, and as many from the end: the largest
/// inline text of 04 §5.4.
pub const KEPT_CHARS: usize = 32_000;

/// How far the end may grow past its size before it is cut back.
const SLACK_CHARS: usize = 8_000;

/// The beginning and the end of a text.
#[derive(Clone, Debug, Default)]
pub struct Excerpt {
    head: String,
    head_chars: usize,
    tail: String,
    tail_chars: usize,
    total: u64,
    bytes: u64,
    lines: u64,
    line_open: bool,
}

impl Excerpt {
    /// Adds text at the end.
    pub fn push(&mut self, text: &str) {
        let chars = text.chars().count();
        self.total += chars as u64;
        self.bytes += text.len() as u64;
        self.count_lines(text);
        let room = KEPT_CHARS - self.head_chars;
        let (head, rest) = text.split_at(byte_of_char(text, room));
        self.head.push_str(head);
        self.head_chars += chars.min(room);
        if rest.is_empty() {
            return;
        }
        let rest_chars = chars - room;
        let skip = rest_chars.saturating_sub(KEPT_CHARS);
        self.tail.push_str(&rest[byte_of_char(rest, skip)..]);
        self.tail_chars += rest_chars - skip;
        if self.tail_chars > KEPT_CHARS + SLACK_CHARS {
            let cut = byte_of_char(&self.tail, self.tail_chars - KEPT_CHARS);
            self.tail.drain(..cut);
            self.tail_chars = KEPT_CHARS;
        }
    }

    fn count_lines(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            self.count_line(&bytes[start..end]);
            self.line_open = false;
            start = end + 1;
        }
        self.count_line(&bytes[start..]);
    }

    /// A piece of a line; an empty one counts as soon as it is not empty any more.
    fn count_line(&mut self, piece: &[u8]) {
        if !self.line_open && piece.iter().any(|byte| *byte != b'\r') {
            self.line_open = true;
            self.lines += 1;
        }
    }

    /// All characters that were pushed.
    pub fn total_chars(&self) -> u64 {
        self.total
    }

    /// All bytes that were pushed.
    pub fn total_bytes(&self) -> u64 {
        self.bytes
    }

    /// All lines that were pushed; empty ones do not count.
    pub fn total_lines(&self) -> u64 {
        self.lines
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The text, if all of it is still here in its beginning.
    pub fn whole(&self) -> Option<&str> {
        (self.total == self.head_chars as u64).then_some(self.head.as_str())
    }

    /// The first `chars` characters, at most [`KEPT_CHARS`].
    pub fn first(&self, chars: usize) -> &str {
        &self.head[..byte_of_char(&self.head, chars)]
    }

    /// The last `chars` characters, at most [`KEPT_CHARS`].
    pub fn last(&self, chars: usize) -> String {
        let chars = chars.min(KEPT_CHARS);
        if self.tail_chars >= chars {
            return self.tail[byte_of_char(&self.tail, self.tail_chars - chars)..].to_owned();
        }
        // The end is shorter than asked, so it follows the beginning without a gap.
        let from_head = (chars - self.tail_chars).min(self.head_chars);
        let mut text =
            self.head[byte_of_char(&self.head, self.head_chars - from_head)..].to_owned();
        text.push_str(&self.tail);
        text
    }

    /// The last `count` lines that are not empty.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        let text = self.last(KEPT_CHARS);
        let lines: Vec<&str> = text
            .split('\n')
            .map(|line| line.trim_end_matches('\r'))
            .filter(|line| !line.is_empty())
            .collect();
        lines[lines.len().saturating_sub(count)..]
            .iter()
            .map(|line| (*line).to_owned())
            .collect()
    }

    /// This text followed by `separator` and `other`; the separator only
    /// between two texts that are not empty.
    pub fn join(&self, separator: &str, other: &Self) -> Self {
        if self.is_empty() || other.is_empty() {
            return if self.is_empty() { other } else { self }.clone();
        }
        let mut joined = self.clone();
        joined.push(separator);
        let total = joined.total + other.total;
        let bytes = joined.bytes + other.bytes;
        joined.push(&other.head);
        joined.push(&other.tail);
        joined.total = total;
        joined.bytes = bytes;
        joined
    }
}

/// The byte at which character number `chars` begins; the length when there are fewer.
fn byte_of_char(text: &str, chars: usize) -> usize {
    if chars >= text.len() {
        return text.len();
    }
    if text.is_ascii() {
        return chars;
    }
    text.char_indices()
        .nth(chars)
        .map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sixty_four_mebibytes_leave_bounded_memory_and_exact_totals() {
        let mut excerpt = Excerpt::default();
        let chunk = format!("{}\n", "x".repeat(1023)).repeat(64);
        for _ in 0..1024 {
            excerpt.push(&chunk);
        }
        excerpt.push("the end");
        assert_eq!(excerpt.total_chars(), 64 * 1024 * 1024 + 7);
        assert_eq!(excerpt.total_lines(), 64 * 1024 + 1);
        assert!(excerpt.whole().is_none());
        assert!(excerpt.last(20).ends_with("\nthe end"));
        assert!(excerpt.head.capacity() + excerpt.tail.capacity() < 300 * 1024);
    }

    #[test]
    fn the_last_lines_leave_out_empty_ones() {
        let mut excerpt = Excerpt::default();
        excerpt.push("a\n\nb\r\n\r\nc");
        assert_eq!(excerpt.last_lines(2), ["b", "c"]);
        assert_eq!(excerpt.total_lines(), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn both_ends_are_those_of_the_whole_text(
            pieces in prop::collection::vec(("[aé\n]{0,5}", 1usize..4000), 0..16),
            other in ("[bü\n]{0,5}", 1usize..20_000),
        ) {
            let pieces: Vec<String> = pieces.into_iter().map(|(text, times)| text.repeat(times)).collect();
            let other = other.0.repeat(other.1);
            let (mut one, mut two) = (Excerpt::default(), Excerpt::default());
            pieces.iter().for_each(|piece| one.push(piece));
            two.push(&other);
            let all = pieces.concat();
            let separator = if all.is_empty() || other.is_empty() { "" } else { "|" };
            let joined = one.join("|", &two);
            for (excerpt, text) in [(one, all.clone()), (joined, all + separator + &other)] {
                let chars: Vec<char> = text.chars().collect();
                prop_assert_eq!(excerpt.total_chars(), chars.len() as u64);
                prop_assert_eq!(excerpt.total_bytes(), text.len() as u64);
                prop_assert_eq!(excerpt.whole().is_some(), chars.len() <= KEPT_CHARS);
                let lines = text.split('\n').filter(|line| !line.is_empty()).count();
                if excerpt.whole().is_some() {
                    prop_assert_eq!(excerpt.total_lines(), lines as u64);
                }
                for count in [1, 5000, KEPT_CHARS] {
                    let kept = count.min(chars.len());
                    prop_assert_eq!(excerpt.first(count), chars[..kept].iter().collect::<String>());
                    prop_assert_eq!(excerpt.last(count), chars[chars.len() - kept..].iter().collect::<String>());
                }
            }
        }
    }
}
