//! A graphics card without a desktop: connectors by name, and one owner for each card.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use drm::control::{Device, ModeTypeFlags, connector};
use rustix::fs::OFlags;

use super::{Look, Screen, ScreenError, sink};
use crate::node;

const CLASS: &str = "/sys/class/drm";

/// The cards that this process has opened, by device. They stay open, so that the console does not show through while a
/// sink is rebuilt.
#[derive(Debug, Default)]
pub struct Cards(Mutex<BTreeMap<PathBuf, Arc<Card>>>);

impl Cards {
    fn open(&self, device: &Path) -> Result<Arc<Card>, ScreenError> {
        let mut cards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(card) = cards.get(device) {
            return Ok(card.clone());
        }
        // Where it can only be read, everything would silently go on in software, or nowhere.
        let card = OpenOptions::new()
            .read(true)
            .write(true)
            .open(device)
            .map_err(|error| ScreenError::Kms(node::refused(device, &error)))?;
        let card = Arc::new(Card(card));
        cards.insert(device.to_owned(), card.clone());
        Ok(card)
    }

    /// Closes those of which nothing is lent. One that was opened while another program owned the card never comes to own
    /// it, only one that is opened when that has gone; and one that shows nothing is left to others.
    fn close_unused(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, card| Arc::strong_count(card) > 1);
    }
}

/// A card, which whoever opens it first is the owner of.
#[derive(Debug)]
struct Card(File);

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Card {}
impl Device for Card {}

/// A connector and what drives it, lent by the card's owner for one sink. Its descriptor is the sink's alone: two sinks
/// that read the events of one descriptor take each other's, and wait for ever.
#[derive(Debug)]
struct Lease {
    descriptor: OwnedFd,
    /// By which sinks know the connector.
    id: u32,
    /// Width and height of the display's own mode.
    size: (u32, u32),
    /// With it, what is lent would be gone.
    _card: Arc<Card>,
}

impl Card {
    /// Has the driver look for displays: some do when the card's owner asks, and not by themselves.
    fn probe(&self) -> io::Result<()> {
        for connector in self.resource_handles()?.connectors() {
            self.get_connector(*connector, true)?;
        }
        Ok(())
    }

    fn lend(self: &Arc<Self>, name: &str) -> io::Result<Lease> {
        let missing = |what: &str| io::Error::new(ErrorKind::NotFound, format!("the driver reports {what}"));
        let resources = self.resource_handles()?;
        let mut handles = resources.connectors().iter().copied();
        let handle = handles
            .find(|handle| self.get_connector(*handle, false).is_ok_and(|found| found.to_string() == name))
            .ok_or_else(|| missing("no connector of that name"))?;
        // Asks the display: what the kernel knows may be of the one before.
        let found = self.get_connector(handle, true)?;
        let size = own_size(&found).ok_or_else(|| missing("no mode for the display"))?;
        let encoders = found.encoders().iter().filter_map(|encoder| self.get_encoder(*encoder).ok());
        let mut refused = missing("no CRTC for the connector");
        for encoder in encoders {
            for driver in resources.filter_crtcs(encoder.possible_crtcs()) {
                // It brings its plane along. Reading events must not wait: the display may have gone before one came.
                match self.create_lease(&[handle.into(), driver.into()], OFlags::NONBLOCK.bits()) {
                    Ok((_, descriptor)) => {
                        return Ok(Lease { descriptor, id: handle.into(), size, _card: self.clone() });
                    }
                    // It drives another connector.
                    Err(error) => refused = error,
                }
            }
        }
        Err(refused)
    }
}

/// The size that the display itself likes best.
fn own_size(connector: &connector::Info) -> Option<(u32, u32)> {
    let own = connector.modes().iter().find(|mode| mode.mode_type().contains(ModeTypeFlags::PREFERRED));
    let (width, height) = own.or(connector.modes().first())?.size();
    Some((width.into(), height.into()))
}

/// A connector as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Connector {
    /// `card0`.
    card: String,
    /// `HDMI-A-1`.
    name: String,
    connected: bool,
}

/// All connectors below a folder like `/sys/class/drm`, in the order of their names.
fn connectors(class: &Path) -> Vec<Connector> {
    let Ok(entries) = std::fs::read_dir(class) else { return Vec::new() };
    let mut found: Vec<Connector> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let (card, name) = path.file_name()?.to_str()?.split_once('-')?;
            let status = std::fs::read_to_string(path.join("status")).ok()?;
            Some(Connector {
                card: card.to_owned(),
                name: name.to_owned(),
                connected: status.trim() == "connected",
            })
        })
        .collect();
    found.sort_by(|one, other| (&one.card, &one.name).cmp(&(&other.card, &other.name)));
    found
}

/// The one that is asked for: by name, or the first that is connected.
fn choose(all: &[Connector], wanted: Option<&str>) -> Result<Connector, ScreenError> {
    let error = |why: String| Err(ScreenError::Kms(why));
    let names = || all.iter().map(|connector| connector.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = match wanted {
        Some(name) => all.iter().find(|connector| connector.name == name),
        None => all.iter().find(|connector| connector.connected),
    };
    match (found, wanted) {
        (Some(connector), _) if connector.connected => Ok(connector.clone()),
        (Some(connector), _) => error(format!("no display is connected to {}", connector.name)),
        (None, _) if all.is_empty() => error(format!("{CLASS} lists no graphics card with connectors")),
        (None, Some(name)) => error(format!("there is no connector {name}; there are {}", names())),
        (None, None) => error(format!("no display is connected to {}", names())),
    }
}

/// The connector that is asked for, once there is a display.
fn find(wanted: Option<&str>, cards: &Cards) -> Result<Connector, ScreenError> {
    let all = connectors(Path::new(CLASS));
    choose(&all, wanted).or_else(|_| {
        let mut devices: Vec<&str> = all.iter().map(|connector| connector.card.as_str()).collect();
        devices.dedup();
        for card in devices.iter().filter_map(|device| cards.open(&path(device)).ok()) {
            // Where it can't, nothing is found.
            let _ = card.probe();
        }
        choose(&connectors(Path::new(CLASS)), wanted)
    })
}

fn path(card: &str) -> PathBuf {
    Path::new("/dev/dri").join(card)
}

/// Opens a connector's screen.
pub fn open(wanted: Option<&str>, look: &Look, cards: &Cards) -> Result<Screen, ScreenError> {
    if look.cell.is_some() {
        return Err(ScreenError::Kms("a `layout` needs X11; give each flow a connector of its own".into()));
    }
    let opened = lend_and_open(wanted, look, cards);
    if opened.is_err() {
        cards.close_unused();
    }
    opened
}

fn lend_and_open(wanted: Option<&str>, look: &Look, cards: &Cards) -> Result<Screen, ScreenError> {
    let connector = find(wanted, cards)?;
    let fails = |why: String| ScreenError::Kms(format!("{} on {}: {why}", connector.name, connector.card));
    let lease =
        cards.open(&path(&connector.card))?.lend(&connector.name).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => {
                fails("another program owns the card (a desktop, a boot splash); end it".into())
            }
            ErrorKind::ResourceBusy => {
                fails("another flow uses it, or the card can't drive more displays".into())
            }
            _ => fails(error.to_string()),
        })?;
    let properties = format!(
        "fd={} connector-id={} force-modesetting=true restore-crtc=false",
        lease.descriptor.as_raw_fd(),
        lease.id
    );
    let size = lease.size;
    let name = connector.name.clone();
    // A display that is unplugged is no error to the sink. What is lent is given back when this is dropped.
    let watch = move || {
        let _lent = &lease;
        choose(&connectors(Path::new(CLASS)), Some(&name)).err().map(|error| error.to_string())
    };
    sink::open("kmssink", &properties, Some(size), look, Box::new(watch)).map_err(|error| match error {
        ScreenError::Pipeline(why) => fails(why.to_string()),
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connector(name: &str, connected: bool) -> Connector {
        Connector { card: "card0".into(), name: name.into(), connected }
    }

    #[test]
    fn the_first_connected_one_is_taken_unless_one_is_named() {
        let all = [connector("DP-1", false), connector("HDMI-A-1", true), connector("HDMI-A-2", true)];
        assert_eq!(choose(&all, None).unwrap().name, "HDMI-A-1");
        assert_eq!(choose(&all, Some("HDMI-A-2")).unwrap().name, "HDMI-A-2");
        let error = |wanted| choose(&all, wanted).unwrap_err().to_string();
        assert_eq!(error(Some("DP-1")), "KMS: no display is connected to DP-1");
        assert_eq!(
            error(Some("VGA-1")),
            "KMS: there is no connector VGA-1; there are DP-1, HDMI-A-1, HDMI-A-2"
        );
        assert_eq!(
            choose(&[], None).unwrap_err().to_string(),
            "KMS: /sys/class/drm lists no graphics card with connectors"
        );
    }

    #[test]
    fn connectors_are_read_as_the_kernel_lists_them() {
        let folder = std::env::temp_dir().join(format!("renderer-drm-{}", std::process::id()));
        for (name, status) in [("card1-HDMI-A-1", "connected\n"), ("card1-DP-1", "disconnected\n")] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
            std::fs::write(folder.join(name).join("status"), status).unwrap();
        }
        std::fs::create_dir_all(folder.join("card1")).unwrap();
        let found = connectors(&folder);
        std::fs::remove_dir_all(&folder).unwrap();
        let of = |name: &str, connected| Connector { card: "card1".into(), name: name.into(), connected };
        assert_eq!(found, [of("DP-1", false), of("HDMI-A-1", true)]);
    }
}
