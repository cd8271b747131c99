//! The card that is shown while there is no picture: dark, and never for long at the same place, so that it burns into
//! no screen.

use font8x8::{BASIC_FONTS, UnicodeFonts};
use gstreamer as gst;

const BACKGROUND: u8 = 8;
const TEXT: u8 = 112;
const GLYPH: usize = 8;
/// Where the text's left upper corner lies, in eighths of what the text leaves free: one place each minute.
const PLACES: [(usize, usize); 8] = [(4, 4), (5, 3), (2, 5), (6, 6), (1, 2), (3, 6), (6, 1), (2, 3)];

/// A card of this size with lines of text.
pub fn draw(width: u32, height: u32, lines: &[String], minute: u64) -> Option<gst::Sample> {
    let (columns, rows) = (usize::try_from(width).ok()?, usize::try_from(height).ok()?);
    let pixels = picture(columns, rows, lines, minute);
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "BGRx")
        .field("width", i32::try_from(width).ok()?)
        .field("height", i32::try_from(height).ok()?)
        .field("framerate", gst::Fraction::new(0, 1))
        .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
        .build();
    let buffer = gst::Buffer::from_mut_slice(pixels);
    Some(gst::Sample::builder().buffer(&buffer).caps(&caps).build())
}

/// In BGRx.
fn picture(columns: usize, rows: usize, lines: &[String], minute: u64) -> Vec<u8> {
    let mut pixels = vec![BACKGROUND; columns * rows * 4];
    let longest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0).max(1);
    // Some two thirds of the width, in whole pixels of the font.
    let scale = (columns * 2 / 3 / (longest * GLYPH)).clamp(1, 16);
    let step = GLYPH * scale * 3 / 2;
    let free = (columns.saturating_sub(longest * GLYPH * scale), rows.saturating_sub(lines.len() * step));
    let places = u64::try_from(PLACES.len()).unwrap_or(1);
    let at = usize::try_from(minute % places).unwrap_or(0);
    let (left, top) = PLACES.get(at).copied().unwrap_or((4, 4));
    let (left, top) = (free.0 * left / 8, free.1 * top / 8);
    for (number, line) in lines.iter().enumerate() {
        for (place, letter) in line.chars().enumerate() {
            let glyph = BASIC_FONTS.get(letter).or_else(|| BASIC_FONTS.get('?')).unwrap_or_default();
            for y in 0..GLYPH * scale {
                let bits = glyph.get(y / scale).copied().unwrap_or(0);
                for x in 0..GLYPH * scale {
                    if bits & (1 << (x / scale)) == 0 {
                        continue;
                    }
                    let (x, y) = (left + place * GLYPH * scale + x, top + number * step + y);
                    if x >= columns || y >= rows {
                        continue;
                    }
                    let from = (y * columns + x) * 4;
                    if let Some(pixel) = pixels.get_mut(from..from + 3) {
                        pixel.fill(TEXT);
                    }
                }
            }
        }
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lit(pixels: &[u8]) -> Vec<usize> {
        pixels.chunks(4).enumerate().filter(|(_, pixel)| pixel[0] == TEXT).map(|(at, _)| at).collect()
    }

    #[test]
    fn a_card_is_dark_shows_its_text_and_moves_each_minute() {
        let lines = ["front-door".to_owned(), "no signal since 08:15 UTC".to_owned()];
        let first = picture(640, 360, &lines, 0);
        let next = picture(640, 360, &lines, 1);
        let text = lit(&first);
        assert!(text.len() > 500 && text.len() < 640 * 360 / 10, "{}", text.len());
        assert_ne!(text, lit(&next));
        assert_eq!(text.len(), lit(&next).len());
        assert!(first.iter().all(|value| *value <= TEXT));
    }

    #[test]
    fn a_screen_that_is_too_small_for_the_text_has_what_fits() {
        for (columns, rows) in [(1, 1), (16, 16), (7, 300)] {
            assert_eq!(
                picture(columns, rows, &["a long name of a flow".to_owned()], 3).len(),
                columns * rows * 4
            );
        }
    }
}
