//! Image files of any content: an image within the limits or an error, never a
//! panic, and never much memory.

#![no_main]

use letta::tools::image::fit::fit;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(fitted) = fit(input.to_vec()) {
        assert!(fitted.bytes.len() <= 5 * 1024 * 1024);
        assert!(fitted.media_type.starts_with("image/"));
    }
});
