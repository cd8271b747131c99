//! GStreamer's elements: which Debian package has which, and how one that is installed meanwhile is found.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;

/// Debian 12's packages, and what is used of them.
const PACKAGES: &[(&str, &[&str])] = &[
    (
        "gstreamer1.0-plugins-base",
        &[
            "appsink",
            "appsrc",
            "audioconvert",
            "audioresample",
            "opusdec",
            "videoconvert",
            "videoscale",
            "volume",
        ],
    ),
    (
        "gstreamer1.0-plugins-good",
        &[
            "aacparse",
            "ac3parse",
            "alawdec",
            "capssetter",
            "flacdec",
            "flacparse",
            "jpegenc",
            "mpegaudioparse",
            "mpg123audiodec",
            "mulawdec",
            "pulsesink",
            "videoflip",
            "vp8dec",
            "vp9dec",
        ],
    ),
    (
        "gstreamer1.0-plugins-bad",
        &[
            "av1dec",
            "av1parse",
            "faad",
            "h264parse",
            "h265parse",
            "kmssink",
            "libde265dec",
            "openh264dec",
            "vp9parse",
            "waylandsink",
        ],
    ),
    (
        "gstreamer1.0-libav",
        &[
            "avdec_aac",
            "avdec_ac3",
            "avdec_eac3",
            "avdec_flac",
            "avdec_g722",
            "avdec_h264",
            "avdec_h265",
            "avdec_mp3",
            "avdec_opus",
            "avdec_vp8",
            "avdec_vp9",
        ],
    ),
    ("gstreamer1.0-alsa", &["alsasink"]),
];

/// Between two looks for plugins: all that try again share one.
const LOOK: Duration = Duration::from_secs(2);

/// An element that is not installed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the GStreamer element `{element}` is missing{}", remedy(.element))]
pub struct Missing {
    element: String,
}

impl Missing {
    /// With its package.
    pub fn of(element: &str) -> Self {
        Self { element: element.to_owned() }
    }
}

fn remedy(element: &str) -> String {
    package(element).map(|package| format!("; install the Debian package {package}")).unwrap_or_default()
}

/// Where Debian has an element. `None`: nowhere, or it belongs to GStreamer's core.
pub fn package(element: &str) -> Option<&'static str> {
    PACKAGES.iter().find(|(_, elements)| elements.contains(&element)).map(|(package, _)| *package)
}

/// Whether an element is known to be there.
pub fn has(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}

/// Looks again where it was not there.
///
/// # Errors
/// It is not there.
pub fn need(element: &str) -> Result<(), Missing> {
    if !has(element) {
        look();
    }
    if has(element) { Ok(()) } else { Err(Missing::of(element)) }
}

/// Finds what was installed since the start, where GStreamer's own elements are.
pub fn look() {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_some_and(|last| last.elapsed() < LOOK) {
        return;
    }
    let registry = gst::Registry::get();
    let file = registry.find_plugin("coreelements").and_then(|plugin| plugin.filename());
    if let Some(folder) = file.as_deref().and_then(|file| file.parent()) {
        registry.scan_path(folder);
    }
    *last = Some(Instant::now());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::pipeline;

    #[test]
    fn a_pipeline_that_lacks_an_element_names_it_and_where_debian_has_it() {
        gst::init().unwrap();
        let error = pipeline("appsrc ! no-such-element ! fakesink").unwrap_err();
        assert_eq!(error.to_string(), "the GStreamer element `no-such-element` is missing");
        assert_eq!(
            Missing::of("videoflip").to_string(),
            "the GStreamer element `videoflip` is missing; install the Debian package gstreamer1.0-plugins-good"
        );
    }
}
