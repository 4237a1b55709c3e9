//! Which lines two texts have in common: one comparison for previews and edits.
//!
//! Lines are compared as numbers, so the algorithm is in the program once,
//! whatever the texts are made of.

use std::collections::HashMap;
use std::convert::Infallible;

use similar::DiffOp;
use similar::algorithms::{Capture, Compact, Replace, myers};

/// The steps from `old` to `new`, in order; indices are those of the lines.
pub(crate) fn line_diff<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<DiffOp> {
    let mut numbers = HashMap::new();
    let mut number = |lines: &[&'a str]| -> Vec<u32> {
        lines
            .iter()
            .map(|line| {
                let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
                *numbers.entry(*line).or_insert(next)
            })
            .collect()
    };
    let (old, new) = (number(old), number(new));
    let capture = Replace::new(Capture::new());
    let mut steps = Compact::new(capture, old.as_slice(), new.as_slice());
    let done: Result<(), Infallible> = myers::diff(
        &mut steps,
        old.as_slice(),
        0..old.len(),
        new.as_slice(),
        0..new.len(),
    );
    let Ok(()) = done;
    steps.into_inner().into_inner().into_ops()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_tell_what_stays_what_goes_and_what_comes() {
        let steps = line_diff(&["a", "b", "c", "d"], &["a", "x", "c", "d", "e"]);
        assert_eq!(
            steps,
            [
                DiffOp::Equal {
                    old_index: 0,
                    new_index: 0,
                    len: 1
                },
                DiffOp::Replace {
                    old_index: 1,
                    old_len: 1,
                    new_index: 1,
                    new_len: 1
                },
                DiffOp::Equal {
                    old_index: 2,
                    new_index: 2,
                    len: 2
                },
                DiffOp::Insert {
                    old_index: 4,
                    new_index: 4,
                    new_len: 1
                },
            ]
        );
        assert!(line_diff(&[], &[]).is_empty());
    }
}
