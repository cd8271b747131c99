//! What is on the screen, as a JPEG that fits into the answer of a direct method.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSrc};
use serde_json::{Value, json};

use crate::decode::{PipelineError, error_of, named, pipeline};
use crate::screen::seen_size;

/// In base64.
const MOST: usize = 90_000;
/// Greatest width and quality, until one fits.
const TRIES: [(u32, u32); 5] = [(1280, 80), (960, 70), (640, 60), (480, 50), (320, 30)];

/// The picture and its size.
///
/// # Errors
/// GStreamer has no JPEG encoder, or no picture of it is small enough.
pub fn take(picture: &gst::Sample) -> Result<Value, PipelineError> {
    let Some((width, height)) = seen_size(picture) else {
        return Err(PipelineError("the picture has no size".into()));
    };
    for (most, quality) in TRIES {
        let to = width.min(most);
        let of_height = u64::from(height) * u64::from(to) / u64::from(width);
        let scaled = (to, u32::try_from(of_height).unwrap_or(1).max(1));
        let text = STANDARD.encode(encode(picture, scaled, quality)?);
        if text.len() <= MOST {
            return Ok(json!({
                "contentType": "image/jpeg", "width": scaled.0, "height": scaled.1, "image": text,
            }));
        }
    }
    Err(PipelineError("the picture can't be made small enough as a JPEG".into()))
}

fn encode(
    picture: &gst::Sample,
    (width, height): (u32, u32),
    quality: u32,
) -> Result<Vec<u8>, PipelineError> {
    let pipeline = pipeline(&format!(
        "appsrc name=in format=time ! videoconvert ! videoscale add-borders=false ! \
         video/x-raw,width={width},height={height},pixel-aspect-ratio=1/1 ! jpegenc quality={quality} ! \
         appsink name=out sync=false"
    ))?;
    let encoded = (|| {
        let input: AppSrc = named(&pipeline, "in")?;
        let output: AppSink = named(&pipeline, "out")?;
        let failed = |why: &str| PipelineError(error_of(&pipeline).unwrap_or_else(|| why.to_owned()));
        pipeline.set_state(gst::State::Playing).map_err(|_| failed("the JPEG encoder does not start"))?;
        input.push_sample(picture).map_err(|_| failed("the JPEG encoder accepts no picture"))?;
        let _ = input.end_of_stream();
        let sample = output.try_pull_sample(gst::ClockTime::from_seconds(5));
        let buffer =
            sample.as_ref().and_then(|sample| sample.buffer()).and_then(|buffer| buffer.map_readable().ok());
        buffer
            .map(|buffer| buffer.as_slice().to_vec())
            .ok_or_else(|| failed("the JPEG encoder returned nothing"))
    })();
    let _ = pipeline.set_state(gst::State::Null);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_whose_pixels_are_wide_is_as_wide_as_it_is_seen() {
        gst::init().unwrap();
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", "GRAY8")
            .field("width", 720_i32)
            .field("height", 576_i32)
            .field("framerate", gst::Fraction::new(0, 1))
            .field("pixel-aspect-ratio", gst::Fraction::new(64, 45))
            .build();
        let buffer = gst::Buffer::from_mut_slice(vec![128_u8; 720 * 576]);
        let body = take(&gst::Sample::builder().buffer(&buffer).caps(&caps).build()).unwrap();
        assert_eq!((&body["width"], &body["height"]), (&json!(1024), &json!(576)));
    }

    #[test]
    fn a_large_picture_of_noise_is_made_small_enough() {
        gst::init().unwrap();
        let (width, height) = (1920_usize, 1080_usize);
        let mut state = 1_u32;
        let noise = (0..width * height * 4)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect::<Vec<_>>();
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", "BGRx")
            .field("width", 1920_i32)
            .field("height", 1080_i32)
            .field("framerate", gst::Fraction::new(0, 1))
            .build();
        let buffer = gst::Buffer::from_mut_slice(noise);
        let body = take(&gst::Sample::builder().buffer(&buffer).caps(&caps).build()).unwrap();
        let text = body["image"].as_str().unwrap();
        assert!(text.len() <= MOST, "{}", text.len());
        assert!(STANDARD.decode(text).unwrap().starts_with(&[0xff, 0xd8, 0xff]));
    }
}
