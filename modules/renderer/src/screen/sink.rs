//! Screens that are sinks of GStreamer.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSrc;

use super::{Kind, Look, Screen, ScreenError, Shared};
use crate::decode::{PipelineError, error_of, named, pipeline};
use crate::elements;

/// A pipeline that ends in a sink.
pub struct Sink {
    pipeline: gst::Pipeline,
    sink: gst::Element,
    /// Its factory.
    pub element: &'static str,
    /// Says whether there is still a display, and when that was last looked at.
    watched: (Watch, Mutex<Instant>),
    shared: Arc<Shared>,
}

/// What a kind of display knows of its end beside GStreamer. What it holds is dropped after the pipeline has ended.
pub type Watch = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// How often it is asked.
const WATCH: Duration = Duration::from_secs(2);

impl Sink {
    /// Pictures that it showed.
    pub fn rendered(&self) -> u64 {
        let stats = self.sink.property::<gst::Structure>("stats");
        stats.get::<u64>("rendered").unwrap_or(0)
    }

    /// What went wrong.
    pub fn error(&self) -> Option<String> {
        error_of(&self.pipeline).or_else(|| {
            let (watch, last) = &self.watched;
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() < WATCH {
                return None;
            }
            *last = Instant::now();
            watch()
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // A driver or compositor that hangs holds up this thread and no other.
        let (pipeline, life) = (self.pipeline.clone(), self.shared.clone());
        let watch = std::mem::replace(&mut self.watched.0, Box::new(|| None));
        let _ = std::thread::Builder::new().name("screen-ends".into()).spawn(move || {
            let _ = pipeline.set_state(gst::State::Null);
            drop((watch, life));
        });
    }
}

/// Shows pictures by `element`; `properties` as `gst-launch-1.0` takes them. All pictures are made of one `size`, if there
/// is one, with borders where their shape is another.
pub fn open(
    element: &'static str,
    properties: &str,
    size: Option<(u32, u32)>,
    look: &Look,
    watch: Watch,
) -> Result<Screen, ScreenError> {
    elements::need(element)?;
    let sized = size.map_or_else(String::new, |(width, height)| {
        format!("video/x-raw,width={width},height={height},pixel-aspect-ratio=1/1 ! ")
    });
    let pipeline = pipeline(&format!(
        "appsrc name=in is-live=true format=time max-bytes=0 ! videoconvert ! {}videoscale add-borders=true ! {sized}\
         {element} name=sink sync=false qos=false enable-last-sample=false {properties}",
        look.turn()
    ))?;
    let input: AppSrc = named(&pipeline, "in")?;
    let sink: gst::Element = named(&pipeline, "sink")?;
    let shared = Arc::<Shared>::default();
    let watched = (watch, Mutex::new(Instant::now()));
    let shown = Sink { pipeline, sink, element, watched, shared: shared.clone() };
    if shown.pipeline.set_state(gst::State::Playing).is_err() {
        let why = shown.error().unwrap_or_else(|| format!("{element} does not start"));
        return Err(PipelineError(why).into());
    }
    if let Some((width, height)) = size {
        shown.shared.set_size(width, height);
    }
    Ok(Screen { shared, input: Some(input), kind: Kind::Sink(shown) })
}

/// A Wayland compositor, by `WAYLAND_DISPLAY`: a name below `XDG_RUNTIME_DIR`, or a path.
pub fn wayland(look: &Look) -> Result<Screen, ScreenError> {
    let error = |why: String| Err(ScreenError::Wayland(why));
    let Some(name) = std::env::var_os("WAYLAND_DISPLAY").filter(|name| !name.is_empty()) else {
        return error("WAYLAND_DISPLAY is not set; set it to the compositor's socket".into());
    };
    if look.cell.is_some() {
        return error("a `layout` needs X11: a Wayland client can't choose where its windows are".into());
    }
    let mut path = PathBuf::from(name);
    if path.is_relative() {
        match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(folder) => path = PathBuf::from(folder).join(path),
            None => {
                return error(format!(
                    "{} is not an absolute path, and XDG_RUNTIME_DIR is not set",
                    path.display()
                ));
            }
        }
    }
    let connection = UnixStream::connect(&path).and_then(|connection| {
        connection.set_nonblocking(true)?;
        Ok(connection)
    });
    let connection = match connection {
        Ok(connection) => connection,
        Err(why) => {
            let ids = format!("user {}, group {}", rustix::process::getuid(), rustix::process::getgid());
            let owner = std::fs::metadata(&path).map_or_else(
                |_| "whoever owns the socket".to_owned(),
                |socket| format!("the socket's owner (user {}, group {})", socket.uid(), socket.gid()),
            );
            return error(format!(
                "{}: {why}; this process runs as {ids}, and {owner} must let it in",
                path.display()
            ));
        }
    };
    let shown = path.display().to_string();
    let answers = Answers { connection, asked: AtomicU32::new(0) };
    let watch = move || {
        let why = answers.missing()?;
        Some(ScreenError::Wayland(format!("the compositor at {shown} {why}")).to_string())
    };
    let properties = format!("fullscreen={} display={}", look.fullscreen, quoted(&path.to_string_lossy()));
    open("waylandsink", &properties, None, look, Box::new(watch))
}

/// waylandsink goes on as if nothing had happened when the compositor is gone, and takes pictures that one which stands
/// still never shows. So it is asked for a sign of life on a connection beside the sink's own.
struct Answers {
    connection: UnixStream,
    /// Looks since it was asked; 0: it was not, or has answered.
    asked: AtomicU32,
}

impl Answers {
    /// What is wrong with it, if something is.
    fn missing(&self) -> Option<String> {
        let mut connection = &self.connection;
        let gone = |why: std::io::Error| Some(format!("is gone: {why}"));
        // `wl_callback.done` and `wl_display.delete_id`: less than fits in here.
        match connection.read(&mut [0; 4096]) {
            Ok(0) => return Some("is gone".into()),
            Ok(_) => self.asked.store(0, Ordering::Relaxed),
            Err(why) if why.kind() == ErrorKind::WouldBlock => {}
            Err(why) => return gone(why),
        }
        let looks = self.asked.fetch_add(1, Ordering::Relaxed);
        if looks == 0 {
            // `wl_display.sync`: of object 1, 12 bytes by request 0, and what answers is to be object 2.
            let ask = [1_u32, 12 << 16, 2].map(u32::to_ne_bytes).concat();
            return connection.write_all(&ask).err().and_then(gone);
        }
        (looks >= 2).then(|| "does not answer".into())
    }
}

/// A text as a property's value in a description.
pub fn quoted(text: &str) -> String {
    let escaped: String = text
        .chars()
        .flat_map(|c| match c {
            '"' | '\\' => vec!['\\', c],
            _ => vec![c],
        })
        .collect();
    format!("\"{escaped}\"")
}
