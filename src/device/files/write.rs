//! `write_file` and `file_ops`: the whole content of a file (06 §3.7, §3.10).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::device::call::{Answer, Call, Failure};
use crate::protocol::fields::ShapeError;
use crate::tools::disk::{self, FileError};
use crate::tools::edit::MAX_BYTES;
use crate::tools::text::decode;

/// Writes a file and the directories that it needs. Text that differs from the
/// file in its line ends alone changes nothing.
pub(in crate::device) async fn write_file(mut call: Call) -> Answer {
    let path = call.fields.string("path")?;
    let echo = path.clone();
    let content = call.fields.string("content");
    let work = async {
        let content = content?;
        call.shared
            .quick(move || write(&PathBuf::from(path), &content))
            .await
    };
    match work.await {
        Ok(()) => Ok(json!({"path": echo})),
        Err(failure) => Err(failure.with("path", echo)),
    }
}

fn write(path: &Path, content: &str) -> Result<(), Failure> {
    let cwd = super::process_cwd();
    let failed = |error: FileError| Failure::new(error.for_model(&cwd));
    match disk::read(path, MAX_BYTES) {
        Ok((bytes, stamp)) => {
            let old = decode(bytes, path).map_err(|error| Failure::new(error.to_string()))?;
            if same_lines(&old, content) {
                return Ok(());
            }
            disk::write(path, content.as_bytes(), Some(stamp)).map_err(failed)?;
        }
        Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let parent = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            if let Some(parent) = parent {
                fs::create_dir_all(parent)
                    .map_err(|error| Failure::new(super::at_path(&error, parent)))?;
            }
            disk::write(path, content.as_bytes(), None).map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
    }
    Ok(())
}

/// Whether two texts are the same but for CRLF in the place of LF.
fn same_lines(one: &str, other: &str) -> bool {
    fn with_lf(text: &str) -> impl Iterator<Item = u8> {
        let bytes = text.as_bytes();
        let kept = move |at: usize| bytes[at] != b'\r' || bytes.get(at + 1) != Some(&b'\n');
        (0..bytes.len())
            .filter(move |at| kept(*at))
            .map(|at| bytes[at])
    }
    with_lf(one).eq(with_lf(other))
}

/// An editor's whole document; its single operations are not applied.
pub(in crate::device) async fn file_ops(mut call: Call) -> Answer {
    let fields = &mut call.fields;
    let path = PathBuf::from(fields.string("path")?);
    for name in ["cg_entries", "ops"] {
        if fields.optional_array(name)?.is_none() {
            return Err(ShapeError::new(name, "an array").into());
        }
    }
    fields.string("source")?;
    if let Some(content) = fields.lenient_string("document_content") {
        let write = move || disk::write(&path, content.as_bytes(), None).map(drop);
        let write = move || write().map_err(|error| Failure::new(error.to_string()));
        call.shared.quick(write).await?;
    }
    Ok(json!({}))
}

#[cfg(test)]
mod tests {
    use super::same_lines;

    #[test]
    fn line_ends_alone_make_no_difference() {
        for (one, other, same) in [
            ("a\r\nb\r\n", "a\nb\n", true),
            ("a\nb", "a\r\nb", true),
            ("", "", true),
            ("", "\n", false),
            ("\r\n", "\n", true),
            ("a\r", "a", false),
            ("a\n", "a", false),
            ("a\rb", "a\r\nb", false),
            ("a\nb\r\n", "a\r\nb\n", true),
            ("ab\n", "b\r\n", false),
        ] {
            assert_eq!(same_lines(one, other), same, "{one:?} {other:?}");
            assert_eq!(same_lines(other, one), same, "{other:?} {one:?}");
        }
    }
}
