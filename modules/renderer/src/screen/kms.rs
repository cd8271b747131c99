//! A graphics card without a desktop: connectors by name, and one owner for each card.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Look, Screen, ScreenError, sink};

const CLASS: &str = "/sys/class/drm";

/// The cards that this process has opened, by device. They stay open, so that the console does not show through while a
/// sink is rebuilt, and every sink of a card is handed the same descriptor: the card has one master.
#[derive(Debug, Default)]
pub struct Cards(Mutex<BTreeMap<PathBuf, Arc<File>>>);

impl Cards {
    fn open(&self, device: &Path) -> Result<Arc<File>, ScreenError> {
        let mut cards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(card) = cards.get(device) {
            return Ok(card.clone());
        }
        // Where it can only be read, everything would silently go on in software, or nowhere.
        let card = OpenOptions::new().read(true).write(true).open(device).map_err(|error| {
            let hint = match (error.kind(), std::fs::metadata(device)) {
                (ErrorKind::PermissionDenied, Ok(node)) => format!(
                    "; it belongs to group {gid}: add \"GroupAdd\": [\"{gid}\"] to HostConfig of createOptions",
                    gid = node.gid()
                ),
                (ErrorKind::NotFound, _) => {
                    "; give the container the device: \"Devices\" in HostConfig of createOptions".into()
                }
                _ => String::new(),
            };
            ScreenError::Kms(format!("{}: {error}{hint}", device.display()))
        })?;
        let card = Arc::new(card);
        cards.insert(device.to_owned(), card.clone());
        Ok(card)
    }
}

/// A connector as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Connector {
    /// `card0`.
    card: String,
    /// `HDMI-A-1`.
    name: String,
    connected: bool,
    /// The number by which sinks know it; older kernels do not tell.
    id: Option<u32>,
}

/// All connectors below a folder like `/sys/class/drm`, in the order of their names.
fn connectors(class: &Path) -> Vec<Connector> {
    let Ok(entries) = std::fs::read_dir(class) else { return Vec::new() };
    let mut found: Vec<Connector> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let (card, name) = path.file_name()?.to_str()?.split_once('-')?;
            let status = std::fs::read_to_string(path.join("status")).ok()?;
            let id = std::fs::read_to_string(path.join("connector_id")).ok();
            Some(Connector {
                card: card.to_owned(),
                name: name.to_owned(),
                connected: status.trim() == "connected",
                id: id.and_then(|id| id.trim().parse().ok()),
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

/// Opens a connector's screen.
pub fn open(wanted: Option<&str>, look: &Look, cards: &Cards) -> Result<Screen, ScreenError> {
    if look.cell.is_some() {
        return Err(ScreenError::Kms("a `layout` needs X11; give each flow a connector of its own".into()));
    }
    let connector = choose(&connectors(Path::new(CLASS)), wanted)?;
    let card = cards.open(&Path::new("/dev/dri").join(&connector.card))?;
    let mut properties = format!("fd={} force-modesetting=true restore-crtc=false", card.as_raw_fd());
    match (connector.id, wanted) {
        (Some(id), _) => properties.push_str(&format!(" connector-id={id}")),
        (None, None) => {}
        (None, Some(name)) => {
            return Err(ScreenError::Kms(format!(
                "this kernel does not tell the number of {name}; use display://kms for the first connected one"
            )));
        }
    }
    let name = connector.name.clone();
    // A display that is unplugged is no error to the sink.
    let watch = move || match choose(&connectors(Path::new(CLASS)), Some(&name)) {
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    };
    sink::open("kmssink", &properties, look, Box::new(watch)).map_err(|error| match error {
        ScreenError::Pipeline(why) => ScreenError::Kms(format!(
            "{} on {}: {why}; if another program owns the display (a desktop, a boot splash), end it",
            connector.name, connector.card
        )),
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connector(name: &str, connected: bool) -> Connector {
        Connector { card: "card0".into(), name: name.into(), connected, id: Some(32) }
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
        for (name, status, id) in
            [("card1-HDMI-A-1", "connected\n", Some("77\n")), ("card1-DP-1", "disconnected\n", None)]
        {
            std::fs::create_dir_all(folder.join(name)).unwrap();
            std::fs::write(folder.join(name).join("status"), status).unwrap();
            if let Some(id) = id {
                std::fs::write(folder.join(name).join("connector_id"), id).unwrap();
            }
        }
        std::fs::create_dir_all(folder.join("card1")).unwrap();
        let found = connectors(&folder);
        std::fs::remove_dir_all(&folder).unwrap();
        let of =
            |name: &str, connected, id| Connector { card: "card1".into(), name: name.into(), connected, id };
        assert_eq!(found, [of("DP-1", false, None), of("HDMI-A-1", true, Some(77))]);
    }
}
