"""GStreamer's RTSP server as a contender: `gstreamer.py PORT RTMP-URL`. One pipeline for all players, of a live stream. (A
file can be sought in: each player that comes then moves it for all, which ends in a failed assertion of the server's.)
Needs Debian's gir1.2-gst-rtsp-server-1.0 and python3-gi."""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(f"( rtmp2src location={sys.argv[2]} ! flvdemux name=d "
                   "d.video ! queue ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 "
                   "d.audio ! queue ! aacparse ! rtpmp4gpay name=pay1 pt=97 )")
factory.set_shared(True)
server.get_mount_points().add_factory("/live/cam", factory)
server.attach(None)
GLib.MainLoop().run()
