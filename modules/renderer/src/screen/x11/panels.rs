//! What is behind an X server's screen: displays that go to sleep, and outputs that have none.

use x11rb::connection::RequestConnection;
use x11rb::errors::ReplyOrIdError;
use x11rb::protocol::dpms::{self, ConnectionExt as _, DPMSMode};
use x11rb::protocol::randr::{self, Connection as Plugged, ConnectionExt as _};
use x11rb::protocol::screensaver::{self, ConnectionExt as _};
use x11rb::protocol::xproto::{Blanking, ConnectionExt as _, Exposures, ScreenSaver, Timestamp, Window};
use x11rb::rust_connection::RustConnection;

/// Lights displays that sleep, and keeps them awake for as long as this connection lasts. Whatever the user has set
/// holds again after that, except with servers that know no better.
pub fn stay_awake(connection: &RustConnection) -> Result<(), ReplyOrIdError> {
    let knows =
        |name: &'static str| Ok::<_, ReplyOrIdError>(connection.extension_information(name)?.is_some());
    let suspends = knows(screensaver::X11_EXTENSION_NAME)? && {
        let version = connection.screensaver_query_version(1, 1)?.reply()?;
        (version.server_major_version, version.server_minor_version) >= (1, 1)
    };
    if suspends {
        connection.screensaver_suspend(1)?.ignore_error();
    } else {
        connection.set_screen_saver(0, 0, Blanking::NOT_PREFERRED, Exposures::DEFAULT)?.ignore_error();
    }
    connection.force_screen_saver(ScreenSaver::RESET)?.ignore_error();
    if knows(dpms::X11_EXTENSION_NAME)? {
        let now = connection.dpms_info()?.reply()?;
        if now.state && now.power_level != DPMSMode::ON {
            connection.dpms_force_level(DPMSMode::ON)?.ignore_error();
        }
    }
    Ok(())
}

/// The outputs of a server.
pub struct Outputs {
    root: Window,
    /// The server tells of them without looking at their cables anew, which takes long.
    tells: bool,
}

/// One of them.
struct Output {
    name: String,
    plugged: bool,
    on: bool,
}

impl Outputs {
    /// Of one screen.
    pub fn of(connection: &RustConnection, root: Window) -> Result<Self, ReplyOrIdError> {
        let tells = connection.extension_information(randr::X11_EXTENSION_NAME)?.is_some() && {
            let version = connection.randr_query_version(1, 3)?.reply()?;
            (version.major_version, version.minor_version) >= (1, 3)
        };
        Ok(Self { root, tells })
    }

    /// Why nobody can see what is on the screen, if so.
    pub fn unseen(&self, connection: &RustConnection) -> Result<Option<String>, ReplyOrIdError> {
        if !self.tells {
            return Ok(None);
        }
        let all = connection.randr_get_screen_resources_current(self.root)?.reply()?;
        let asked = all.outputs.iter().map(|output| {
            // Whatever has changed meanwhile: the next look sees that.
            connection.randr_get_output_info(*output, Timestamp::from(x11rb::CURRENT_TIME))
        });
        let asked = asked.collect::<Result<Vec<_>, _>>()?;
        let mut outputs = Vec::new();
        for cookie in asked {
            let told = cookie.reply()?;
            outputs.push(Output {
                name: String::from_utf8_lossy(&told.name).into_owned(),
                plugged: told.connection != Plugged::DISCONNECTED,
                on: told.crtc != x11rb::NONE,
            });
        }
        Ok(unseen(&outputs))
    }
}

/// Servers without a single output, as those of remote desktops may be, are none of this.
fn unseen(outputs: &[Output]) -> Option<String> {
    if outputs.is_empty() || outputs.iter().any(|output| output.plugged && output.on) {
        return None;
    }
    let named = |plugged| {
        let names =
            outputs.iter().filter(|output| output.plugged == plugged).map(|output| output.name.as_str());
        names.take(8).collect::<Vec<_>>().join(", ")
    };
    Some(match named(true) {
        none if none.is_empty() => {
            format!("no display is connected to the server's outputs ({})", named(false))
        }
        off => format!("the server has switched its outputs off ({off}); `xrandr --auto` switches them on"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_seen_where_an_output_is_on_and_has_a_display() {
        let of = |outputs: &[(&str, bool, bool)]| {
            let output = |(name, plugged, on): &(&str, bool, bool)| Output {
                name: (*name).to_owned(),
                plugged: *plugged,
                on: *on,
            };
            unseen(&outputs.iter().map(output).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("HDMI-1", true, true), ("DP-1", false, false)]), None);
        let unplugged = of(&[("HDMI-1", false, true), ("DP-1", false, false)]);
        let wanted = "no display is connected to the server's outputs (HDMI-1, DP-1)";
        assert_eq!(unplugged.as_deref(), Some(wanted));
        let off = of(&[("HDMI-1", true, false), ("DP-1", false, false)]);
        let wanted = "the server has switched its outputs off (HDMI-1); `xrandr --auto` switches them on";
        assert_eq!(off.as_deref(), Some(wanted));
    }
}
