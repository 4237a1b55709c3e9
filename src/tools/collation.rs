//! The order in which names are listed for people: case aside, punctuation
//! before digits before letters (06 §3.1).

use std::cmp::Ordering;

/// Compares two names: without regard to case first, lower case before upper
/// on a tie.
pub fn by_name(left: &str, right: &str) -> Ordering {
    let keys = |text: &'_ str| -> Vec<(u8, char)> {
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

fn class(character: char) -> u8 {
    if character.is_alphabetic() {
        2
    } else if character.is_numeric() {
        1
    } else {
        0
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
                "-y", ".git", "_x", "9", "a", "A", "a10", "Ab", "b", "B", "z", "é"
            ]
        );
    }
}
