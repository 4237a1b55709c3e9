//! From the bytes of an image file to bytes that the API takes.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

/// Longest edge of what is returned, in pixels.
const MAX_EDGE: u32 = 2000;

/// Most bytes of what is returned.
const MAX_BYTES: usize = 5 * 1024 * 1024;

/// Most pixels of what is decoded.
const MAX_PIXELS: u64 = 25_000_000;

/// Most memory that a decoder may take for itself and its pixels, in bytes:
/// 25 million pixels of 16-bit RGBA.
const MAX_ALLOC: u64 = MAX_PIXELS * 8 + 16 * 1024 * 1024;

/// An image that cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// More pixels than are decoded.
    #[error("Image exceeds the 25,000,000 pixel input limit")]
    TooManyPixels,
    /// Nothing brings it under the limit.
    #[error("Image too large: {megabytes:.1}MB exceeds 5MB limit even after compression")]
    Incompressible {
        /// Its size in MiB.
        megabytes: f64,
    },
    /// The content is no image of a kind that is decoded here.
    #[error("the content is not a PNG, JPEG, GIF, WebP or BMP image")]
    Unknown,
    /// It does not decode.
    #[error(transparent)]
    Decode(#[from] image::ImageError),
}

/// An image within the limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitted {
    /// The encoded image.
    pub bytes: Vec<u8>,
    /// `image/png` or `image/jpeg`.
    pub media_type: &'static str,
    /// Whether it lost size or quality.
    pub resized: bool,
}

/// Brings an image within the limits. A PNG or JPEG that already is passes
/// through byte for byte, unless it has to be turned upright.
pub fn fit(bytes: Vec<u8>) -> Result<Fitted, ImageError> {
    let (image, format, turned) = decode(&bytes)?;
    let mut resized = false;
    let image = if image.width() > MAX_EDGE || image.height() > MAX_EDGE {
        resized = true;
        image.resize(MAX_EDGE, MAX_EDGE, FilterType::CatmullRom)
    } else {
        image
    };
    let original = bytes.len();
    let unchanged = !resized && !turned;
    let (bytes, media_type) = match format {
        ImageFormat::Jpeg if unchanged && ends(&bytes) => (bytes, "image/jpeg"),
        ImageFormat::Png if unchanged => (bytes, "image/png"),
        ImageFormat::Jpeg => (jpeg(&image, 85)?, "image/jpeg"),
        _ => (png(&image)?, "image/png"),
    };
    if bytes.len() <= MAX_BYTES {
        return Ok(Fitted {
            bytes,
            media_type,
            resized,
        });
    }
    drop(bytes);
    compress(image, original)
}

fn decode(bytes: &[u8]) -> Result<(DynamicImage, ImageFormat, bool), ImageError> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(image::ImageError::IoError)?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_ALLOC);
    reader.limits(limits);
    let format = reader.format().ok_or(ImageError::Unknown)?;
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(ImageError::TooManyPixels);
    }
    // A file without orientation, or with a broken one, stands as it is.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok((image, format, orientation != Orientation::NoTransforms))
}

/// Whether a JPEG has its end marker near its end. Decoders forgive a missing
/// rest, the API does not: such an image is encoded anew.
fn ends(jpeg: &[u8]) -> bool {
    jpeg[jpeg.len().saturating_sub(1024)..]
        .windows(2)
        .any(|pair| pair == [0xFF, 0xD9])
}

/// Lower quality first, then fewer pixels.
fn compress(image: DynamicImage, original: usize) -> Result<Fitted, ImageError> {
    let fitted = |bytes| Fitted {
        bytes,
        media_type: "image/jpeg",
        resized: true,
    };
    let image = DynamicImage::ImageRgb8(image.into_rgb8());
    for quality in [85, 70, 55, 40] {
        let bytes = jpeg(&image, quality)?;
        if bytes.len() <= MAX_BYTES {
            return Ok(fitted(bytes));
        }
    }
    for quarters in [3, 2, 1] {
        let edge = |pixels: u32| (pixels * quarters / 4).max(1);
        let smaller = image.resize(
            edge(image.width()),
            edge(image.height()),
            FilterType::CatmullRom,
        );
        let bytes = jpeg(&smaller, 70)?;
        if bytes.len() <= MAX_BYTES {
            return Ok(fitted(bytes));
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a size for people, one decimal")]
    let megabytes = original as f64 / (1024.0 * 1024.0);
    Err(ImageError::Incompressible { megabytes })
}

fn jpeg(image: &DynamicImage, quality: u8) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
    // JPEG knows neither transparency nor 16-bit channels.
    image.to_rgb8().write_with_encoder(encoder)?;
    Ok(bytes)
}

fn png(image: &DynamicImage) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    image.write_with_encoder(PngEncoder::new(&mut bytes))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgb, RgbImage};

    fn picture(width: u32, height: u32) -> DynamicImage {
        DynamicImage::ImageRgb8(RgbImage::from_fn(width, height, |x, y| {
            Rgb([(x % 251) as u8, (y % 241) as u8, 7])
        }))
    }

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        image.write_to(&mut out, format).unwrap();
        out.into_inner()
    }

    fn size(bytes: &[u8]) -> (u32, u32) {
        let image = image::load_from_memory(bytes).unwrap();
        (image.width(), image.height())
    }

    #[test]
    fn small_png_and_jpeg_pass_byte_for_byte_and_the_rest_becomes_png() {
        let picture = picture(30, 20);
        for (format, media_type, same) in [
            (ImageFormat::Png, "image/png", true),
            (ImageFormat::Jpeg, "image/jpeg", true),
            (ImageFormat::Gif, "image/png", false),
            (ImageFormat::WebP, "image/png", false),
            (ImageFormat::Bmp, "image/png", false),
        ] {
            let bytes = encoded(&picture, format);
            let fitted = fit(bytes.clone()).unwrap();
            assert_eq!(fitted.media_type, media_type, "{format:?}");
            assert_eq!(fitted.bytes == bytes, same, "{format:?}");
            assert!(!fitted.resized);
            assert_eq!(size(&fitted.bytes), (30, 20));
        }
    }

    #[test]
    fn long_edges_shrink_and_the_format_family_stays() {
        for (format, media_type) in [
            (ImageFormat::Png, "image/png"),
            (ImageFormat::Jpeg, "image/jpeg"),
        ] {
            let fitted = fit(encoded(&picture(2100, 21), format)).unwrap();
            assert!(fitted.resized);
            assert_eq!(fitted.media_type, media_type);
            assert_eq!(size(&fitted.bytes), (2000, 20));
        }
    }

    #[test]
    fn exif_orientation_is_applied() {
        let plain = encoded(&picture(30, 20), ImageFormat::Jpeg);
        // An APP1 segment with one big-endian entry: orientation 6, a quarter turn.
        let exif: &[u8] = b"\xFF\xE1\x00\x22Exif\0\0MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let mut turned = plain[..2].to_vec();
        turned.extend_from_slice(exif);
        turned.extend_from_slice(&plain[2..]);
        let fitted = fit(turned).unwrap();
        assert_eq!(size(&fitted.bytes), (20, 30));
        assert_eq!((fitted.media_type, fitted.resized), ("image/jpeg", false));
    }

    #[test]
    fn noise_is_compressed_below_the_byte_limit() {
        let mut seed = 1_u32;
        let noise = DynamicImage::ImageRgb8(RgbImage::from_fn(1400, 1300, |_, _| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [a, b, c, _] = seed.to_be_bytes();
            Rgb([a, b, c])
        }));
        let bytes = encoded(&noise, ImageFormat::Png);
        assert!(bytes.len() > MAX_BYTES);
        let fitted = fit(bytes).unwrap();
        assert!(fitted.bytes.len() <= MAX_BYTES && fitted.resized);
        assert_eq!(fitted.media_type, "image/jpeg");
    }

    #[test]
    fn bombs_lies_and_ruins_are_errors() {
        // A tiny PNG whose header claims 50,000 x 50,000 pixels.
        let mut bomb = encoded(&picture(1, 1), ImageFormat::Png);
        bomb[16..24].copy_from_slice(&[0, 0, 0xC3, 0x50, 0, 0, 0xC3, 0x50]);
        let crc = crc32(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&crc.to_be_bytes());
        assert!(matches!(fit(bomb), Err(ImageError::TooManyPixels)));

        assert!(matches!(
            fit(b"plain text".to_vec()),
            Err(ImageError::Unknown)
        ));
        assert!(fit(Vec::new()).is_err());
        for format in [
            ImageFormat::Png,
            ImageFormat::Gif,
            ImageFormat::WebP,
            ImageFormat::Bmp,
        ] {
            let mut half = encoded(&picture(300, 200), format);
            half.truncate(half.len() / 2);
            assert!(fit(half).is_err(), "{format:?}");
        }
    }

    #[test]
    fn half_a_jpeg_never_passes_as_it_is() {
        let mut half = encoded(&picture(300, 200), ImageFormat::Jpeg);
        half.truncate(half.len() * 3 / 4);
        assert!(fit(half.clone()).is_err() || fit(half.clone()).unwrap().bytes != half);
    }

    /// The checksum of a PNG chunk, bit by bit.
    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |mut crc, byte| {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0xEDB8_8320 & (0_u32.wrapping_sub(crc & 1)));
            }
            crc
        })
    }
}
