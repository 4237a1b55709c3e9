//! Reads arguments the way models write them: a number may come as text, a
//! flag as `"true"` (04 §5.6). What cannot be read counts as not given.

use serde_json::{Map, Value};

/// A text argument.
pub fn text<'a>(args: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    args.get(name)?.as_str()
}

/// A number, or a text that is one.
pub fn number(args: &Map<String, Value>, name: &str) -> Option<f64> {
    let number = match args.get(name)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number| number.is_finite())
}

/// A flag, or a text that is one.
pub fn flag(args: &Map<String, Value>, name: &str) -> Option<bool> {
    match args.get(name)? {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => text.trim().to_ascii_lowercase().parse().ok(),
        _ => None,
    }
}

/// Whole milliseconds of a number within `least..=most`.
pub fn millis(number: f64, least: u64, most: u64) -> u64 {
    // `as` saturates, which is what a clamp wants.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates"
    )]
    let whole = number.floor() as u64;
    whole.clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_and_flags_are_read_from_texts_too() {
        let args =
            json!({"a": 5, "b": "5000", "c": "x", "d": "True", "e": false, "f": 1.9, "g": null});
        let args = args.as_object().unwrap();
        assert_eq!(number(args, "a"), Some(5.0));
        assert_eq!(number(args, "b"), Some(5000.0));
        assert_eq!(number(args, "c"), None);
        assert_eq!(number(args, "g"), None);
        assert_eq!(flag(args, "d"), Some(true));
        assert_eq!(flag(args, "e"), Some(false));
        assert_eq!(flag(args, "a"), None);
        assert_eq!(millis(1.9, 1, 10), 1);
        assert_eq!(millis(-5.0, 1, 10), 1);
        assert_eq!(millis(1e30, 1, 10), 10);
    }
}
