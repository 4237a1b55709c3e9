//! ViewImage: show an image file to the model (04 §7.24).

use std::sync::LazyLock;

use serde_json::Value;

use super::args::{Args, DRAFT_07, schema};
use super::image::{Images, is_image};
use super::paths;
use super::tool::{Lane, Tool, ToolCall, ToolContext, ToolFuture, ToolOutcome};

const DESCRIPTION: &str = "\
Shows you an image file of this machine: .png, .jpg, .jpeg, .gif, .webp or .bmp. Use it when you need to see what is in the picture. Large images are scaled down.";

static PARAMETERS: LazyLock<Value> = LazyLock::new(|| {
    schema(
        r#"{
    "path": {"type": "string", "description": "The image file, absolute or relative to the working directory"}
}"#,
        &["path"],
        DRAFT_07,
    )
});

/// The tool.
#[derive(Debug)]
pub struct ViewImage {
    images: Images,
}

impl ViewImage {
    /// A ViewImage that shares `images` with Read.
    pub fn new(images: Images) -> Self {
        Self { images }
    }
}

impl Tool for ViewImage {
    fn name(&self) -> &'static str {
        "ViewImage"
    }

    fn description(&self) -> &str {
        DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &PARAMETERS
    }

    fn lane(&self) -> Lane {
        Lane::Parallel
    }

    fn run<'a>(&'a self, call: &'a ToolCall, context: &'a ToolContext) -> ToolFuture<'a> {
        Box::pin(async move {
            let cwd = context.cwd.get();
            let path = match Args::new("ViewImage", &call.args).string("path") {
                Ok(path) => paths::resolve(path, &cwd),
                Err(error) => return ToolOutcome::error(error.to_string()),
            };
            if !is_image(&path) {
                return ToolOutcome::error(format!(
                    "Unsupported image file type: {}",
                    path.display()
                ));
            }
            self.images.show(call, path, cwd).await
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::read::Read;
    use crate::tools::tool::ToolReturn;
    use crate::tools::trial::{Trial, special_files};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use std::fs;
    use std::io::Cursor;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        image::DynamicImage::new_rgb8(width, height)
            .write_to(&mut out, image::ImageFormat::Png)
            .unwrap();
        out.into_inner()
    }

    #[tokio::test]
    async fn an_image_comes_as_parts_named_by_its_content() {
        let trial = Trial::new();
        let bytes = png(3, 2);
        trial.file("a.JPG", &bytes);
        let expected = ToolReturn::Parts(vec![
            json!({"type": "text", "text": "[Image: a.JPG]"}),
            json!({"type": "image", "source": {
                "type": "base64", "media_type": "image/png", "data": STANDARD.encode(&bytes),
            }}),
        ]);
        let view = ViewImage::new(Images::default());
        let read = Read::new(Images::default());
        let outcome = trial.run(&view, json!({"path": "a.JPG"})).await;
        assert_eq!(outcome.tool_return, expected);
        let outcome = trial.run(&read, json!({"file_path": "a.JPG"})).await;
        assert_eq!(outcome.tool_return, expected);
        trial.file("wide.png", png(2001, 1));
        assert_eq!(
            trial.ok(&view, json!({"path": "wide.png"})).await,
            "[Image: wide.png (resized to fit API limits)]|<image>"
        );
    }

    #[tokio::test]
    async fn what_is_no_image_is_named() {
        let trial = Trial::new();
        trial.file("a.txt", "x");
        trial.file("lie.png", "plain text");
        trial.file("photo.heic", b"\0\0\0\x18ftypheic");
        trial.file("big.png", "");
        fs::OpenOptions::new()
            .write(true)
            .open(trial.path("big.png"))
            .unwrap()
            .set_len(20 * 1024 * 1024 + 1)
            .unwrap();
        let view = ViewImage::new(Images::default());
        for (path, expected) in [
            ("a.txt", "Unsupported image file type: <cwd>/a.txt"),
            (
                "lie.png",
                "Failed to read image file: <cwd>/lie.png (the content is not a PNG, JPEG, GIF, WebP or BMP image)",
            ),
            (
                "photo.heic",
                "Failed to read image file: <cwd>/photo.heic (the content is not a PNG, JPEG, GIF, WebP or BMP image)",
            ),
            (
                "big.png",
                "Image file too large: 20971521 bytes (max 20971520 bytes)",
            ),
            (
                "none.png",
                "File does not exist. Attempted path: <cwd>/none.png. Current working directory: <cwd>",
            ),
        ] {
            assert_eq!(trial.err(&view, json!({"path": path})).await, expected);
        }
        for (path, expected) in special_files(&trial) {
            let link = trial.path("link.png");
            std::os::unix::fs::symlink(&path, &link).unwrap();
            let text = trial.err(&view, json!({"path": link})).await;
            assert!(text.contains(expected), "{text}");
            fs::remove_file(link).unwrap();
        }
        trial.survives_bad_arguments(&view).await;
    }
}
