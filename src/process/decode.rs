//! Bytes of a child become text, chunk by chunk: incremental UTF-8, lossy.
//!
//! Invariant: whatever the chunk borders, the pieces joined equal
//! `String::from_utf8_lossy` of the whole input (04 §6.3).

/// Decodes UTF-8 that arrives in pieces; holds back at most three bytes.
#[derive(Debug, Default)]
pub struct Utf8Decoder {
    pending: Vec<u8>,
}

impl Utf8Decoder {
    /// Decodes `bytes`; an unfinished character at the end waits for the next call.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        let joined;
        let mut rest = if self.pending.is_empty() {
            bytes
        } else {
            let mut all = std::mem::take(&mut self.pending);
            all.extend_from_slice(bytes);
            joined = all;
            &joined[..]
        };
        let mut text = String::with_capacity(rest.len());
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    return text;
                }
                Err(error) => error,
            };
            let (valid, after) = rest.split_at(error.valid_up_to());
            text.push_str(&String::from_utf8_lossy(valid));
            match error.error_len() {
                Some(bad) => {
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[bad..];
                }
                None => {
                    self.pending = after.to_vec();
                    return text;
                }
            }
        }
    }

    /// What an unfinished character at the very end decodes to.
    pub fn finish(&mut self) -> String {
        let pending = std::mem::take(&mut self.pending);
        String::from_utf8_lossy(&pending).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_character_split_over_chunks_is_whole_again() {
        let mut decoder = Utf8Decoder::default();
        let bytes = "é€🦀".as_bytes();
        let text: String = bytes.iter().map(|byte| decoder.push(&[*byte])).collect();
        assert_eq!(text + &decoder.finish(), "é€🦀");
    }

    #[test]
    fn an_unfinished_character_at_the_end_becomes_one_replacement() {
        let mut decoder = Utf8Decoder::default();
        assert_eq!(decoder.push(b"a\xE2\x82"), "a");
        assert_eq!(decoder.finish(), "\u{FFFD}");
        assert_eq!(decoder.finish(), "");
    }

    proptest! {
        #[test]
        fn any_chunking_equals_the_whole(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xE2), Just(0x82), Just(b'a')], 0..200),
            cuts in prop::collection::vec(0usize..200, 0..8),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut decoder = Utf8Decoder::default();
            let mut text: String = cuts.windows(2).map(|cut| decoder.push(&bytes[cut[0]..cut[1]])).collect();
            text.push_str(&decoder.finish());
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}
