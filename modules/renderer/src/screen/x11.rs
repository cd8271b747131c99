//! A window on an X server, spoken to directly.
//!
//! GStreamer's sinks for X11 use Xlib, which ends the whole process when the connection to the server breaks. This one
//! sees that as an error, and learns from the server itself when a picture has been taken.

mod panels;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSrc};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::pwrite;
use x11rb::connection::{Connection, RequestConnection};
use x11rb::errors::ReplyOrIdError;
use x11rb::protocol::Event;
use x11rb::protocol::shm::{self, ConnectionExt as _};
use x11rb::protocol::xproto::{
    AtomEnum, ChangeWindowAttributesAux, ConfigureWindowAux, ConnectionExt as _, CreateGCAux,
    CreateWindowAux, EventMask, Gcontext, ImageFormat, ImageOrder, PropMode, Screen as XScreen, VisualClass,
    Window, WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

use super::{Kind, Look, Screen, ScreenError, Shared};
use crate::decode::{error_of, named, pipeline};

use panels::Outputs;

/// How long to wait for the server or the next picture before looking at everything again.
const PAUSE: Duration = Duration::from_millis(50);
/// The server lies with the last of a stream of requests.
const PIECE: usize = 128 << 10;
/// How often it is looked at whether somebody can see the screen.
const LOOK: Duration = Duration::from_secs(2);

fn broken(error: impl std::fmt::Display) -> ScreenError {
    ScreenError::X11(format!("{error}"))
}

/// Opens a window. Blocks until the server has answered.
pub fn open(look: &Look) -> Result<Screen, ScreenError> {
    let name = std::env::var("DISPLAY").unwrap_or_default();
    if name.is_empty() {
        return Err(ScreenError::X11("DISPLAY is not set; set it to the X server's, such as :0".into()));
    }
    let (connection, number) = RustConnection::connect(None).map_err(|error| {
        ScreenError::X11(format!(
            "DISPLAY={name}: {error}; is the X server running, and may this user talk to it (XAUTHORITY)?"
        ))
    })?;
    let window = Canvas::create(connection, number, look)?;
    let (width, height) = (window.width, window.height);
    let pipeline = pipeline(&format!(
        "appsrc name=in is-live=true format=time max-bytes=0 ! videoconvert ! {}videoscale add-borders=true ! \
         capsfilter name=size ! appsink name=out sync=false max-buffers=1 enable-last-sample=false",
        look.turn()
    ))?;
    let input: AppSrc = named(&pipeline, "in")?;
    let output: AppSink = named(&pipeline, "out")?;
    let size: gst::Element = named(&pipeline, "size")?;
    size.set_property("caps", caps(width, height));
    let shared = Arc::new(Shared::default());
    shared.set_size(width.into(), height.into());
    if pipeline.set_state(gst::State::Playing).is_err() {
        let _ = pipeline.set_state(gst::State::Null);
        return Err(ScreenError::X11("the pipeline that scales pictures does not start".into()));
    }
    let look = look.clone();
    let showing =
        Showing { window, pipeline, output, size, shared: shared.clone(), look, looked_at: Instant::now() };
    std::thread::Builder::new().name("x11".into()).spawn(move || showing.run()).map_err(broken)?;
    Ok(Screen { shared, input: Some(input), kind: Kind::X11 })
}

fn caps(width: u16, height: u16) -> gst::Caps {
    gst::Caps::builder("video/x-raw")
        .field("format", "BGRx")
        .field("width", i32::from(width))
        .field("height", i32::from(height))
        .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
        .build()
}

/// The thread of a window.
struct Showing {
    window: Canvas,
    pipeline: gst::Pipeline,
    output: AppSink,
    size: gst::Element,
    shared: Arc<Shared>,
    look: Look,
    /// When it was last asked whether somebody can see the screen.
    looked_at: Instant,
}

/// Where a window belongs, and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    x: i16,
    y: i16,
    width: u16,
    height: u16,
}

impl Place {
    /// On a screen of this size.
    fn of(look: &Look, (all_width, all_height): (u16, u16)) -> Self {
        let length = |value: u32| u16::try_from(value).unwrap_or(u16::MAX).clamp(1, 16_384);
        let start = |value: u32| i16::try_from(value).unwrap_or(0);
        let (x, y, width, height) = match look.cell {
            Some(cell) => cell.place(all_width.into(), all_height.into()),
            None if look.fullscreen => (0, 0, all_width.into(), all_height.into()),
            None if !look.rotate.is_multiple_of(180) => (0, 0, look.size.1, look.size.0),
            None => (0, 0, look.size.0, look.size.1),
        };
        Self { x: start(x), y: start(y), width: length(width), height: length(height) }
    }
}

/// Whether a window is part of its screen, rather than one among others.
fn is_fixed(look: &Look) -> bool {
    look.fullscreen || look.cell.is_some()
}

impl Showing {
    fn run(mut self) {
        if let Err(error) = self.show() {
            self.shared.fail(format!("X11: {error}"));
        }
        let _ = self.pipeline.set_state(gst::State::Null);
    }

    fn show(&mut self) -> Result<(), ReplyOrIdError> {
        let mut last: Option<gst::Sample> = None;
        // What is drawn again is no other picture.
        let mut is_new = false;
        while !self.shared.stop.load(Ordering::Relaxed) {
            if let Some(error) = error_of(&self.pipeline) {
                self.shared.fail(error);
                return Ok(());
            }
            if !is_fixed(&self.look)
                && let Some(picture) = self.shared.picture().filter(|picture| *picture != self.look.size)
            {
                self.look.size = picture;
                let Place { width, height, .. } = Place::of(&self.look, (0, 0));
                self.window.configure(
                    &ConfigureWindowAux::new().width(u32::from(width)).height(u32::from(height)),
                )?;
            }
            let mut exposed = false;
            while let Some(event) = self.window.connection.poll_for_event()? {
                match event {
                    Event::ShmCompletion(_) => {
                        self.window.busy = false;
                        self.shared.rendered.fetch_add(is_new.into(), Ordering::Relaxed);
                    }
                    Event::ConfigureNotify(event) if event.window == self.window.root => {
                        self.screen_is((event.width, event.height))?;
                    }
                    Event::ConfigureNotify(event) if self.window.resized(event.width, event.height) => {
                        self.shared.set_size(event.width.into(), event.height.into());
                        self.size.set_property("caps", caps(event.width, event.height));
                    }
                    Event::Expose(_) => exposed = true,
                    // Then nothing says that the picture was drawn.
                    Event::Error(error) if self.window.busy => {
                        self.shared
                            .fail(format!("X11: the server refused a picture: {:?}", error.error_kind));
                        return Ok(());
                    }
                    _ => {}
                }
            }
            if self.window.busy {
                self.window.wait(PAUSE);
                continue;
            }
            if self.looked_at.elapsed() >= LOOK {
                self.looked_at = Instant::now();
                if let Some(why) = self.window.outputs.unseen(&self.window.connection)? {
                    self.shared.fail(format!("X11: {why}"));
                    return Ok(());
                }
            }
            let pause = gst::ClockTime::from_mseconds(PAUSE.as_millis().try_into().unwrap_or(50));
            let next = self.output.try_pull_sample(if exposed { gst::ClockTime::ZERO } else { pause });
            is_new = next.is_some();
            last = next.or(last);
            if let Some(sample) = last.as_ref().filter(|_| is_new || exposed) {
                let Some(map) = sample.buffer().and_then(|buffer| buffer.map_readable().ok()) else {
                    continue;
                };
                let at_once = self.window.put(map.as_slice())?;
                if at_once {
                    self.shared.rendered.fetch_add(is_new.into(), Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    /// The screen has this size now.
    fn screen_is(&mut self, all: (u16, u16)) -> Result<(), ReplyOrIdError> {
        if !is_fixed(&self.look) {
            return Ok(());
        }
        let Place { x, y, width, height } = Place::of(&self.look, all);
        let place = ConfigureWindowAux::new().x(i32::from(x)).y(i32::from(y));
        self.window.configure(&place.width(u32::from(width)).height(u32::from(height)))
    }
}

/// A window and the memory that it is drawn from.
struct Canvas {
    connection: RustConnection,
    root: Window,
    outputs: Outputs,
    window: Window,
    context: Gcontext,
    depth: u8,
    width: u16,
    height: u16,
    memory: Option<Memory>,
    /// Whether the server knows shared memory that is handed over as a descriptor.
    shares: bool,
    /// The server draws.
    busy: bool,
}

struct Memory {
    file: OwnedFd,
    segment: shm::Seg,
    bytes: usize,
}

impl Canvas {
    fn create(connection: RustConnection, number: usize, look: &Look) -> Result<Self, ScreenError> {
        let screen = connection.setup().roots.get(number).cloned();
        let screen = screen.ok_or_else(|| ScreenError::X11("the server has no such screen".into()))?;
        let is_plain =
            connection.setup().image_byte_order == ImageOrder::LSB_FIRST && has_true_colour(&screen);
        if !is_plain {
            return Err(ScreenError::X11("the screen has no 24-bit colour; start the server with it".into()));
        }
        let outputs = Outputs::of(&connection, screen.root).map_err(broken)?;
        if let Some(why) = outputs.unseen(&connection).map_err(broken)? {
            return Err(ScreenError::X11(why));
        }
        Self::on(connection, &screen, outputs, look).map_err(broken)
    }

    fn on(
        connection: RustConnection,
        screen: &XScreen,
        outputs: Outputs,
        look: &Look,
    ) -> Result<Self, ReplyOrIdError> {
        let root = screen.root;
        // It changes with the screen's size.
        let changes = ChangeWindowAttributesAux::new().event_mask(EventMask::STRUCTURE_NOTIFY);
        connection.change_window_attributes(root, &changes)?;
        let all = connection.get_geometry(root)?.reply()?;
        let Place { x, y, width, height } = Place::of(look, (all.width, all.height));
        let window = connection.generate_id()?;
        let context = connection.generate_id()?;
        let mut attributes = CreateWindowAux::new()
            .background_pixel(screen.black_pixel)
            .event_mask(EventMask::STRUCTURE_NOTIFY | EventMask::EXPOSURE);
        if look.cell.is_some() {
            // A window manager would put it elsewhere.
            attributes = attributes.override_redirect(1);
        }
        connection.create_window(
            screen.root_depth,
            window,
            root,
            x,
            y,
            width,
            height,
            0,
            WindowClass::INPUT_OUTPUT,
            screen.root_visual,
            &attributes,
        )?;
        connection.create_gc(context, window, &CreateGCAux::new().graphics_exposures(0))?;
        let title = look.title.as_bytes();
        connection.change_property8(PropMode::REPLACE, window, AtomEnum::WM_NAME, AtomEnum::STRING, title)?;
        connection.change_property8(
            PropMode::REPLACE,
            window,
            AtomEnum::WM_CLASS,
            AtomEnum::STRING,
            b"renderer\0renderer\0",
        )?;
        if is_fixed(look) {
            let atom =
                |name: &[u8]| Ok::<_, ReplyOrIdError>(connection.intern_atom(false, name)?.reply()?.atom);
            let (state, full) = (atom(b"_NET_WM_STATE")?, atom(b"_NET_WM_STATE_FULLSCREEN")?);
            if look.cell.is_none() {
                connection.change_property32(PropMode::REPLACE, window, state, AtomEnum::ATOM, &[full])?;
            }
            hide_pointer(&connection, window)?;
            panels::stay_awake(&connection)?;
        }
        connection.map_window(window)?;
        let knows = connection.extension_information(shm::X11_EXTENSION_NAME)?.is_some();
        let version = if knows { Some(connection.shm_query_version()?.reply()?) } else { None };
        let shares = version.is_some_and(|known| (known.major_version, known.minor_version) >= (1, 2));
        connection.flush()?;
        let depth = screen.root_depth;
        let memory = None;
        Ok(Self {
            connection,
            root,
            outputs,
            window,
            context,
            depth,
            width,
            height,
            memory,
            shares,
            busy: false,
        })
    }

    /// Asks for another size or place.
    fn configure(&self, place: &ConfigureWindowAux) -> Result<(), ReplyOrIdError> {
        self.connection.configure_window(self.window, place)?;
        self.connection.flush()?;
        Ok(())
    }

    /// Whether the window has another size now.
    fn resized(&mut self, width: u16, height: u16) -> bool {
        let is_new = (self.width, self.height) != (width, height) && width > 0 && height > 0;
        if is_new {
            (self.width, self.height) = (width, height);
        }
        is_new
    }

    /// Waits for something from the server.
    fn wait(&self, most: Duration) {
        let mut descriptors = [PollFd::from_borrowed_fd(self.connection.stream().as_fd(), PollFlags::IN)];
        let most = Timespec { tv_sec: 0, tv_nsec: most.subsec_nanos().into() };
        let _ = poll(&mut descriptors, Some(&most));
    }

    /// Draws a picture of the window's size. Whether that is done; otherwise the server says when.
    fn put(&mut self, pixels: &[u8]) -> Result<bool, ReplyOrIdError> {
        let bytes = usize::from(self.width) * usize::from(self.height) * 4;
        let Some(pixels) = pixels.get(..bytes).filter(|_| pixels.len() == bytes) else {
            // Of the size before.
            return Ok(false);
        };
        if self.shares && self.put_shared(pixels)? {
            return Ok(false);
        }
        self.put_sent(pixels)?;
        Ok(true)
    }

    fn put_shared(&mut self, pixels: &[u8]) -> Result<bool, ReplyOrIdError> {
        if self.memory.as_ref().is_none_or(|memory| memory.bytes != pixels.len()) {
            if let Some(old) = self.memory.take() {
                self.connection.shm_detach(old.segment)?;
            }
            let Some((file, kept)) = memory(pixels.len()) else {
                self.shares = false;
                return Ok(false);
            };
            let segment = self.connection.generate_id()?;
            // A server on another machine knows the extension, and can't map our memory.
            if self.connection.shm_attach_fd(segment, file, false)?.check().is_err() {
                self.shares = false;
                return Ok(false);
            }
            self.memory = Some(Memory { file: kept, segment, bytes: pixels.len() });
        }
        let Some(memory) = &self.memory else { return Ok(false) };
        let mut written = 0;
        while let Some(rest) = pixels.get(written..).filter(|rest| !rest.is_empty()) {
            match pwrite(&memory.file, rest, written as u64) {
                Ok(count) if count > 0 => written += count,
                _ => {
                    self.shares = false;
                    return Ok(false);
                }
            }
        }
        let (width, height) = (self.width, self.height);
        self.connection.shm_put_image(
            self.window,
            self.context,
            width,
            height,
            0,
            0,
            width,
            height,
            0,
            0,
            self.depth,
            ImageFormat::Z_PIXMAP.into(),
            true,
            memory.segment,
            0,
        )?;
        self.connection.flush()?;
        self.busy = true;
        Ok(true)
    }

    /// Over the connection, in pieces, and waits until the server has them.
    fn put_sent(&mut self, pixels: &[u8]) -> Result<(), ReplyOrIdError> {
        let line = usize::from(self.width) * 4;
        let lines = (PIECE.min(self.connection.maximum_request_bytes() / 2) / line.max(1)).max(1);
        let mut top: i16 = 0;
        for piece in pixels.chunks(line.max(1) * lines) {
            let height = u16::try_from(piece.len() / line.max(1)).unwrap_or(0);
            self.connection.put_image(
                ImageFormat::Z_PIXMAP,
                self.window,
                self.context,
                self.width,
                height,
                0,
                top,
                0,
                self.depth,
                piece,
            )?;
            top = top.saturating_add_unsigned(height);
        }
        self.connection.get_input_focus()?.reply()?;
        Ok(())
    }
}

/// Memory to share: what is handed over, and what is kept.
fn memory(bytes: usize) -> Option<(OwnedFd, OwnedFd)> {
    let file = memfd_create("picture", MemfdFlags::CLOEXEC).ok()?;
    ftruncate(&file, u64::try_from(bytes).ok()?).ok()?;
    let kept = file.try_clone().ok()?;
    Some((file, kept))
}

/// Whether a pixel is blue, green, red and nothing, a byte each.
fn has_true_colour(screen: &XScreen) -> bool {
    let mut visuals = screen.allowed_depths.iter().filter(|depth| depth.depth == screen.root_depth);
    let is_root = |depth: &x11rb::protocol::xproto::Depth| {
        depth.visuals.iter().any(|visual| {
            visual.visual_id == screen.root_visual
                && visual.class == VisualClass::TRUE_COLOR
                && (visual.red_mask, visual.green_mask, visual.blue_mask) == (0xff_0000, 0xff00, 0xff)
        })
    };
    screen.root_depth >= 24 && visuals.any(is_root)
}

fn hide_pointer(connection: &RustConnection, window: Window) -> Result<(), ReplyOrIdError> {
    let (dot, cursor) = (connection.generate_id()?, connection.generate_id()?);
    connection.create_pixmap(1, dot, window, 1, 1)?;
    let context = connection.generate_id()?;
    connection.create_gc(context, dot, &CreateGCAux::new().foreground(0))?;
    let square = x11rb::protocol::xproto::Rectangle { x: 0, y: 0, width: 1, height: 1 };
    connection.poly_fill_rectangle(dot, context, &[square])?;
    connection.create_cursor(cursor, dot, dot, 0, 0, 0, 0, 0, 0, 0, 0)?;
    connection.change_window_attributes(window, &ChangeWindowAttributesAux::new().cursor(cursor))?;
    connection.free_gc(context)?;
    connection.free_pixmap(dot)?;
    connection.free_cursor(cursor)?;
    Ok(())
}
