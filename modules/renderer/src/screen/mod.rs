//! Where pictures are shown. A screen takes raw pictures and shows each at once: when that is was decided before.

pub(crate) use sink::quoted;

mod kms;
mod sink;
mod x11;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use gstreamer as gst;
use gstreamer_app::AppSrc;

use crate::decode::PipelineError;
use crate::elements::Missing;
use crate::options::{Cell, Display};

pub use kms::Cards;

/// Pictures that may wait for a display that is slow; what comes then is dropped.
const MOST_WAITING: u64 = 2;

/// Why there is no screen. Each sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ScreenError {
    /// None of several would do.
    #[error("no display can be used: {0}")]
    None(String),
    /// No X server.
    #[error("X11: {0}")]
    X11(String),
    /// No compositor.
    #[error("Wayland: {0}")]
    Wayland(String),
    /// No card, no connector, or another program has it.
    #[error("KMS: {0}")]
    Kms(String),
    /// An element is not installed.
    #[error(transparent)]
    Element(#[from] Missing),
    /// A pipeline does not start.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
}

/// How a picture is to look.
#[derive(Clone, Debug)]
pub struct Look {
    /// Of a window.
    pub title: String,
    /// The whole screen.
    pub fullscreen: bool,
    /// Degrees clockwise.
    pub rotate: u64,
    /// One cell of the screen.
    pub cell: Option<Cell>,
    /// Of the picture, for a window.
    pub size: (u32, u32),
}

impl Look {
    /// What turns pictures, as a part of a pipeline.
    fn turn(&self) -> &'static str {
        match self.rotate {
            // Its older property `method` has no effect with GStreamer 1.22.
            90 => "videoflip video-direction=90r ! ",
            180 => "videoflip video-direction=180 ! ",
            270 => "videoflip video-direction=90l ! ",
            _ => "",
        }
    }
}

/// What its owner and its threads share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Pictures that the display took.
    rendered: AtomicU64,
    error: Mutex<Option<String>>,
    stop: AtomicBool,
    /// Width times 2^32 and height, where the screen has a size of its own.
    size: AtomicU64,
    /// The same of the picture that is shown.
    picture: AtomicU64,
}

impl Shared {
    fn fail(&self, why: String) {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    fn set_size(&self, width: u32, height: u32) {
        self.size.store(both(width, height), Ordering::Relaxed);
    }

    /// The size of the picture that is shown, if there is one.
    fn picture(&self) -> Option<(u32, u32)> {
        halves(self.picture.load(Ordering::Relaxed))
    }
}

/// Width and height of a picture in square pixels: those of some streams are wider than high.
pub fn seen_size(picture: &gst::Sample) -> Option<(u32, u32)> {
    let format = picture.caps()?.structure(0)?;
    let length = |name| format.get::<i32>(name).ok()?.try_into().ok().filter(|length: &u32| *length > 0);
    let (width, height) = (length("width")?, length("height")?);
    let shape = format.get::<gst::Fraction>("pixel-aspect-ratio").ok();
    let parts = shape
        .and_then(|shape| Some((u64::try_from(shape.numer()).ok()?, u64::try_from(shape.denom()).ok()?)));
    let (wide, high) = parts.filter(|(wide, high)| *wide > 0 && *high > 0).unwrap_or((1, 1));
    Some((u32::try_from(u64::from(width) * wide / high).unwrap_or(width).max(1), height))
}

fn both(width: u32, height: u32) -> u64 {
    u64::from(width) << 32 | u64::from(height)
}

fn halves(size: u64) -> Option<(u32, u32)> {
    let half = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
    (size != 0).then(|| (half(size >> 32), half(size)))
}

/// A screen that is open.
pub struct Screen {
    shared: Arc<Shared>,
    input: Option<AppSrc>,
    kind: Kind,
}

enum Kind {
    /// Counts.
    None,
    /// A thread of its own talks to the X server.
    X11,
    /// A sink of GStreamer.
    Sink(sink::Sink),
}

impl Screen {
    /// Opens one. Blocks, and for as long as a display server that does not answer pleases.
    ///
    /// # Errors
    /// Why not.
    pub fn open(display: &Display, look: &Look, cards: &Cards) -> Result<Self, ScreenError> {
        match display {
            Display::None => Ok(Self { shared: Arc::default(), input: None, kind: Kind::None }),
            Display::X11 => x11::open(look),
            Display::Wayland => sink::wayland(look),
            Display::Kms(connector) => kms::open(connector.as_deref(), look, cards),
            Display::Default => Self::best(look, cards),
        }
    }

    /// A desktop where there is one, since it owns the card; otherwise the card.
    fn best(look: &Look, cards: &Cards) -> Result<Self, ScreenError> {
        let mut why = Vec::new();
        let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let desktop = ["WAYLAND_DISPLAY", "DISPLAY"].into_iter().find(is_set);
        for display in [Display::Wayland, Display::X11, Display::Kms(None)] {
            // One that is about to start would not get the card any more.
            if let (Display::Kms(_), Some(name)) = (&display, desktop) {
                why.push(format!("KMS is not tried, because {name} is set: a desktop is expected"));
                continue;
            }
            match Self::open(&display, look, cards) {
                Ok(screen) => return Ok(screen),
                Err(error) => why.push(error.to_string()),
            }
        }
        Err(ScreenError::None(why.join("; ")))
    }

    /// Shows a picture, unless those before it still wait. Never waits itself.
    pub fn show(&self, picture: &gst::Sample) -> bool {
        let Some(input) = &self.input else {
            self.shared.rendered.fetch_add(1, Ordering::Relaxed);
            return true;
        };
        if let Some((width, height)) = seen_size(picture) {
            self.shared.picture.store(both(width, height), Ordering::Relaxed);
        }
        self.has_room() && input.push_sample(picture).is_ok()
    }

    /// Pictures that the display took.
    pub fn rendered(&self) -> u64 {
        match &self.kind {
            Kind::Sink(sink) => sink.rendered(),
            Kind::None | Kind::X11 => self.shared.rendered.load(Ordering::Relaxed),
        }
    }

    /// What went wrong, if something did: then it shows nothing more.
    pub fn error(&self) -> Option<String> {
        if let Kind::Sink(sink) = &self.kind
            && let Some(error) = sink.error()
        {
            return Some(error);
        }
        self.shared.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The size of the screen or window, where it is known.
    pub fn size(&self) -> Option<(u32, u32)> {
        halves(self.shared.size.load(Ordering::Relaxed))
    }

    /// Which element or protocol shows the pictures.
    pub fn sink(&self) -> &'static str {
        match &self.kind {
            Kind::None => "none",
            Kind::X11 => "x11",
            Kind::Sink(sink) => sink.element,
        }
    }

    /// Whether opening it anew may help where it takes no pictures. An X server or compositor that stands still does not
    /// answer to a new window either, and goes on with the old one.
    pub fn reopens(&self) -> bool {
        matches!(&self.kind, Kind::Sink(sink) if sink.element == "kmssink")
    }

    /// It takes one more picture now.
    pub fn has_room(&self) -> bool {
        self.input.as_ref().is_none_or(|input| input.current_level_buffers() < MOST_WAITING)
    }

    /// Lives until all that belongs to it has ended.
    pub fn life(&self) -> Weak<Shared> {
        Arc::downgrade(&self.shared)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}
