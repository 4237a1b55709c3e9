//! `edit_file`: the Edit tool for people's editors (06 §3.8).

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::device::call::{Answer, Call, Failure, push};
use crate::protocol::fields::{Fields, ShapeError};
use crate::tools::disk::{self, FileError};
use crate::tools::edit::MAX_BYTES;
use crate::tools::replace::{Replaced, Replacement, replace};
use crate::tools::text::{decode, plural};

/// A longer text is not pushed to editors, in bytes; they read the file.
const PUSHED: usize = 1024 * 1024;

struct Request {
    old: String,
    new: String,
    all: bool,
    expected: Option<usize>,
}

impl Request {
    fn new(fields: &mut Fields) -> Result<Self, ShapeError> {
        let expected = match fields.take("expected_replacements") {
            None => None,
            Some(number) => Some(positive(&number).ok_or_else(|| {
                ShapeError::new("expected_replacements", "a whole number above 0")
            })?),
        };
        Ok(Self {
            old: fields.string("old_string")?,
            new: fields.string("new_string")?,
            all: fields.optional_bool("replace_all")?.unwrap_or(false),
            expected,
        })
    }

    fn edit(&self, path: &Path) -> Result<Replaced, Failure> {
        let cwd = super::process_cwd();
        let failed = |error: FileError| Failure::new(error.for_model(&cwd));
        let words = |error: &dyn std::error::Error| Failure::new(error.to_string());
        let (bytes, stamp) = disk::read(path, MAX_BYTES).map_err(failed)?;
        let text = decode(bytes, path).map_err(|error| words(&error))?;
        let change = Replacement {
            old: &self.old,
            new: &self.new,
            all: self.all,
            expected: self.expected,
            unescape: true,
        };
        let replaced = replace(&text, change).map_err(|error| words(&error))?;
        disk::write(path, replaced.text.as_bytes(), Some(stamp)).map_err(failed)?;
        Ok(replaced)
    }
}

/// A whole number above 0, also when it is written as `2.0`.
fn positive(number: &Value) -> Option<usize> {
    let whole = number.as_f64().filter(|number| number.fract() == 0.0)?;
    if !(1.0..=f64::from(u32::MAX)).contains(&whole) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole and in range, as just checked"
    )]
    let whole = whole as usize;
    Some(whole)
}

/// Replaces one exact piece of text.
pub(in crate::device) async fn edit_file(mut call: Call) -> Answer {
    let path = call.fields.string("file_path")?;
    let request = Request::new(&mut call.fields);
    let place = match path.strip_prefix("~/") {
        Some(rest) => call.services().home.user.join(rest),
        None => PathBuf::from(&path),
    };
    let edit = async {
        let request = request?;
        call.shared.quick(move || request.edit(&place)).await
    };
    let Replaced {
        text,
        count,
        start_line,
    } = match edit.await {
        Ok(replaced) => replaced,
        Err(failure) => return Err(failure.with("file_path", path)),
    };
    if text.len() <= PUSHED {
        let frame = json!({
            "type": "file_ops", "path": path, "cg_entries": [], "ops": [],
            "source": "agent", "document_content": text,
        });
        push(call.services(), &call.request.from, &frame);
    }
    let message = format!(
        "Successfully replaced {count} occurrence{} in {path}",
        plural(count)
    );
    Ok(json!({
        "file_path": path, "message": message, "replacements": count, "start_line": start_line,
    }))
}
