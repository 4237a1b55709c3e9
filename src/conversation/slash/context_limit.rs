//! The argument of `/context-limit`: a number of tokens, with `k` or `m`.

use serde_json::Value;

use crate::api::models;
use crate::process::capture::thousands;

/// Less needs an override.
const LEAST: u64 = 30_000;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// `None` is the default of the model.
    tokens: Option<u64>,
    beyond_bounds: bool,
}

/// Reads it.
pub(super) fn parse(args: &str) -> Result<Wanted, String> {
    let mut wanted = Wanted {
        tokens: None,
        beyond_bounds: false,
    };
    for word in args.split_whitespace() {
        if word == "--override" {
            wanted.beyond_bounds = true;
        } else if word.starts_with("--") {
            return Err(format!("Unknown option: {word}"));
        } else if wanted.tokens.is_some() {
            return Err("Usage: /context-limit [tokens] [--override]".into());
        } else {
            wanted.tokens = Some(tokens(word).ok_or_else(|| {
                format!(
                    "Invalid context window \"{word}\". Provide a positive token count, e.g. 200000 or 200k."
                )
            })?);
        }
    }
    Ok(wanted)
}

fn tokens(word: &str) -> Option<u64> {
    let plain: String = word
        .chars()
        .filter(|c| !matches!(c, '_' | ','))
        .collect::<String>()
        .to_ascii_lowercase();
    let (digits, times) = match plain.strip_suffix('k') {
        Some(digits) => (digits, 1_000),
        None => match plain.strip_suffix('m') {
            Some(digits) => (digits, 1_000_000),
            None => (plain.as_str(), 1),
        },
    };
    let whole: u64 = digits.parse().ok()?;
    whole.checked_mul(times).filter(|tokens| *tokens > 0)
}

impl Wanted {
    /// The limit for a model, and what is said of it behind "max context".
    pub(super) fn against(
        self,
        handle: Option<&str>,
        catalogue: &[Value],
    ) -> Result<(u64, String), String> {
        let row = catalogue
            .iter()
            .find(|row| handle.is_some() && models::handle(row) == handle);
        let most = row.and_then(|row| row.pointer("/updateArgs/context_window")?.as_u64());
        let Some(tokens) = self.tokens else {
            let (Some(most), Some(row)) = (most, row) else {
                let handle = handle.unwrap_or("unknown");
                return Err(format!(
                    "No catalog default for model {handle}, so reset is unavailable. Pass an explicit value: /context-limit <n>."
                ));
            };
            let label = row.get("label").and_then(Value::as_str);
            let label = label.or(handle).unwrap_or_default();
            return Ok((
                most,
                format!("reset to {} tokens for {label}.", thousands(most)),
            ));
        };
        if !self.beyond_bounds && tokens < LEAST {
            return Err(
                "Context window must be at least 30,000 tokens. Use --override to apply a smaller value."
                    .into(),
            );
        }
        if let Some(most) = most.filter(|most| tokens > *most && !self.beyond_bounds) {
            return Err(format!(
                "Context window cannot exceed the model.json default of {} tokens. Use --override to apply a larger value.",
                thousands(most)
            ));
        }
        let note = if self.beyond_bounds {
            " with override"
        } else {
            ""
        };
        Ok((
            tokens,
            format!("set to {} tokens{note}.", thousands(tokens)),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_limit_is_read_bounded_and_said() {
        let catalogue =
            [json!({"handle":"a/m","label":"M","updateArgs":{"context_window":200_000}})];
        let of = |args: &str, handle| {
            let found = parse(args).and_then(|wanted| wanted.against(Some(handle), &catalogue));
            found.unwrap_or_else(|error| (0, error))
        };
        for (args, handle, limit, words) in [
            ("", "a/m", 200_000, "reset to 200,000 tokens for M."),
            ("100k", "a/m", 100_000, "set to 100,000 tokens."),
            ("1_00,000", "a/m", 100_000, "set to 100,000 tokens."),
            (
                "1m --override",
                "a/m",
                1_000_000,
                "set to 1,000,000 tokens with override.",
            ),
            (
                "100",
                "a/m",
                0,
                "Context window must be at least 30,000 tokens.",
            ),
            (
                "--override 100",
                "a/m",
                100,
                "set to 100 tokens with override.",
            ),
            (
                "300k",
                "a/m",
                0,
                "Context window cannot exceed the model.json default of 200,000 tokens.",
            ),
            ("300k", "b/other", 300_000, "set to 300,000 tokens."),
            ("", "b/other", 0, "No catalog default for model b/other"),
            ("lots", "a/m", 0, "Invalid context window \"lots\"."),
            ("0", "a/m", 0, "Invalid context window \"0\"."),
            (
                "1k 2k",
                "a/m",
                0,
                "Usage: /context-limit [tokens] [--override]",
            ),
            ("--all", "a/m", 0, "Unknown option: --all"),
        ] {
            let (found, said) = of(args, handle);
            assert_eq!(found, limit, "{args}");
            assert!(said.starts_with(words), "{args}: {said}");
        }
    }
}
