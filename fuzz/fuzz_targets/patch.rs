//! The patch parser and the fitting of hunks: nothing panics, and a patch that
//! fits leaves a text that ends with a line feed or is empty.
//!
//! The input is a patch; what stands behind its first NUL is the file.

#![no_main]

use letta::tools::patch::{Operation, fit, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let (patch, file) = input.split_once('\0').unwrap_or((input, "one\ntwo\nthree\n"));
    let Ok(operations) = parse(patch) else { return };
    for operation in &operations {
        if let Operation::Update { hunks, path, .. } = operation
            && let Ok(text) = fit(file, hunks, path)
        {
            assert!(text.is_empty() || text.ends_with('\n'));
        }
    }
});
