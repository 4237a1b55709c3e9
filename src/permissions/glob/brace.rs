//! Brace expansion of a pattern: `{a,b}`, `{1..3}`, `{a..c}`, nested.

use super::TooLarge;

/// Most alternatives that one pattern may have.
const MAX_ALTERNATIVES: usize = 512;
/// Most bytes that all alternatives together may have.
const MAX_BYTES: usize = 64 * 1024;

/// Every alternative of `pattern`. Braces that are no expansion stay literal.
pub(super) fn expand(pattern: &str) -> Result<Vec<String>, TooLarge> {
    let mut done = Vec::new();
    let mut open = vec![(String::new(), pattern.to_owned())];
    let mut bytes = 0;
    let mut steps = 0;
    while let Some((head, rest)) = open.pop() {
        steps += 1;
        if steps > MAX_ALTERNATIVES * 4 || done.len() + open.len() > MAX_ALTERNATIVES {
            return Err(TooLarge);
        }
        let Some((start, end, choices)) = first_group(&rest)? else {
            bytes += head.len() + rest.len();
            if bytes > MAX_BYTES {
                return Err(TooLarge);
            }
            done.push(head + &rest);
            continue;
        };
        // Later choices first: the stack turns them around.
        for choice in choices.into_iter().rev() {
            open.push((
                format!("{head}{}", &rest[..start]),
                format!("{choice}{}", &rest[end..]),
            ));
        }
    }
    Ok(done)
}

type Group = (usize, usize, Vec<String>);

/// The first group that expands: its byte range and its choices.
fn first_group(text: &str) -> Result<Option<Group>, TooLarge> {
    let bytes = text.as_bytes();
    let mut stack: Vec<(usize, Vec<usize>)> = Vec::new();
    let mut best: Option<(usize, usize, Vec<usize>)> = None;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' => stack.push((at, Vec::new())),
            b',' => {
                if let Some((_, commas)) = stack.last_mut() {
                    commas.push(at);
                }
            }
            b'}' => {
                let Some((start, commas)) = stack.pop() else {
                    continue;
                };
                let expands =
                    !commas.is_empty() || range(&text[start + 1..at]).is_some_and(|r| r.is_ok());
                let too_wide = range(&text[start + 1..at]).is_some_and(|r| r.is_err());
                if too_wide {
                    return Err(TooLarge);
                }
                if expands && best.as_ref().is_none_or(|(old, _, _)| start < *old) {
                    best = Some((start, at, commas));
                }
                if stack.is_empty() && best.is_some() {
                    break;
                }
            }
            _ => {}
        }
    }
    let Some((start, close, commas)) = best else {
        return Ok(None);
    };
    let choices = if commas.is_empty() {
        match range(&text[start + 1..close]) {
            Some(Ok(values)) => values,
            _ => return Err(TooLarge),
        }
    } else {
        let mut from = start + 1;
        let mut choices = Vec::with_capacity(commas.len() + 1);
        for at in commas.into_iter().chain([close]) {
            choices.push(text[from..at].to_owned());
            from = at + 1;
        }
        choices
    };
    Ok(Some((start, close + 1, choices)))
}

/// `1..3`, `a..c`, with an optional step; `Err` when it has too many values.
fn range(text: &str) -> Option<Result<Vec<String>, TooLarge>> {
    let mut ends = text.split("..");
    let (from, to, step) = (ends.next()?, ends.next()?, ends.next());
    if ends.next().is_some() {
        return None;
    }
    let (low, high, letters) = match (letter(from), letter(to)) {
        (Some(a), Some(b)) => (i64::from(a), i64::from(b), true),
        _ => (from.parse().ok()?, to.parse().ok()?, false),
    };
    let step: i64 = match step {
        Some(text) => text.parse().ok()?,
        None => 1,
    };
    let step = step.unsigned_abs().max(1);
    let count = low.abs_diff(high) / step;
    if count >= MAX_ALTERNATIVES as u64 {
        return Some(Err(TooLarge));
    }
    let width = if from.starts_with('0') || to.starts_with('0') {
        from.len().max(to.len())
    } else {
        0
    };
    let values = (0..=count).map(|n| {
        let offset = i64::try_from(n * step).unwrap_or(0);
        let value = if low <= high {
            low + offset
        } else {
            low - offset
        };
        match u8::try_from(value) {
            Ok(byte) if letters => char::from(byte).to_string(),
            _ => format!("{value:0width$}"),
        }
    });
    Some(Ok(values.collect()))
}

fn letter(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [byte] if byte.is_ascii_alphabetic() => Some(*byte),
        _ => None,
    }
}
