//! Images for the model: checked, turned upright, shrunk to what the API takes
//! (04 §5.5).
//!
//! Invariants: nothing is decoded before its header says that it is small
//! enough; what is returned decodes, is at most 2000 x 2000 and 5 MiB, and is
//! named by its content, never by its extension. One image is decoded at a
//! time, so that parallel reads do not add up their memory.

mod content;
pub mod fit;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::sync::Semaphore;

use super::disk;
use super::offload::{self, Failure, INTERRUPTED, Worked};
use super::tool::{Status, ToolCall, ToolOutcome, ToolReturn};

pub use content::{OnFailure, Unprepared};
pub use fit::{Fitted, ImageError, fit};

/// Larger image files are refused, in bytes.
pub const MAX_FILE_BYTES: u64 = 20 * 1024 * 1024;

const EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "gif", "webp", "bmp", "heic", "heif"];

/// Whether the extension is one of an image.
pub fn is_image(path: &Path) -> bool {
    path.extension().is_some_and(|found| {
        EXTENSIONS
            .iter()
            .any(|known| found.eq_ignore_ascii_case(known))
    })
}

/// Shows images, one at a time. Cheap to clone; clones share the turn.
#[derive(Clone, Debug)]
pub struct Images(Arc<Semaphore>);

impl Default for Images {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Images {
    /// The image at `path` as content parts, for a call that works in `cwd`.
    pub(crate) async fn show(&self, call: &ToolCall, path: PathBuf, cwd: PathBuf) -> ToolOutcome {
        let permit = tokio::select! {
            permit = self.0.clone().acquire_owned() => permit,
            () = call.cancel.cancelled() => return ToolOutcome::error(INTERRUPTED),
        };
        offload::look(call, move || {
            // Held by the work, which may outlive an aborted call.
            let _permit = permit;
            show(&path, &cwd)
        })
        .await
    }
}

fn show(path: &Path, cwd: &Path) -> Worked {
    let (bytes, _) = disk::read(path, MAX_FILE_BYTES).map_err(|error| match error {
        disk::FileError::TooLarge { size, max } => Failure::new(format!(
            "Image file too large: {size} bytes (max {max} bytes)"
        )),
        other => Failure::new(other.for_model(cwd)),
    })?;
    let fitted = fit(bytes).map_err(|error| {
        Failure::new(format!(
            "Failed to read image file: {} ({error})",
            path.display()
        ))
    })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let resized = if fitted.resized {
        " (resized to fit API limits)"
    } else {
        ""
    };
    Ok(ToolOutcome::with(
        ToolReturn::Parts(vec![
            json!({"type": "text", "text": format!("[Image: {name}{resized}]")}),
            json!({"type": "image", "source": {
                "type": "base64",
                "media_type": fitted.media_type,
                "data": STANDARD.encode(&fitted.bytes),
            }}),
        ]),
        Status::Success,
    ))
}
