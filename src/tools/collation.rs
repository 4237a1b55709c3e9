//! The order in which names are listed for people: case aside, punctuation
//! before digits before letters (06 §3.1).

use std::cmp::Ordering;

/// Compares two names: without regard to case first, lower case before upper
/// on a tie.
pub fn by_name(left: &str, right: &str) -> Ordering {
    let keys = |text: &'_ str| -> Vec<(usize, char)> {
        text.chars()
            .flat_map(char::to_lowercase)
            .map(|character| (class(character), character))
            .collect()
    };
    keys(left)
        .cmp(&keys(right))
        .then_with(|| cases(left).cmp(cases(right)))
        .then_with(|| left.cmp(right))
}

/// Punctuation in the order of Unicode's collation; what is not here comes after it.
const PUNCTUATION: &str = "_-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$";

fn class(character: char) -> usize {
    if character.is_alphabetic() {
        PUNCTUATION.len() + 2
    } else if character.is_numeric() {
        PUNCTUATION.len() + 1
    } else {
        PUNCTUATION.find(character).unwrap_or(PUNCTUATION.len())
    }
}

fn cases(text: &str) -> impl Iterator<Item = bool> + '_ {
    text.chars().map(char::is_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_people_expect() {
        let mut names = vec![
            "b", "B", "a10", "A", "a", "_x", "-y", "9", "Ab", "é", ".git", "z",
        ];
        names.sort_by(|left, right| by_name(left, right));
        assert_eq!(
            names,
            [
                "_x", "-y", ".git", "9", "a", "A", "a10", "Ab", "b", "B", "z", "é"
            ]
        );
    }
}
