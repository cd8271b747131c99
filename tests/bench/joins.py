"""How soon a player has a picture on the screen, and how far it then is behind: by protocol and `join`."""

import contextlib
import json
import os
import pathlib
import pwd
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from screens import running
from servers import ROOT, TARGET, free_port, listens, wait_for

sys.path.append(str(ROOT / "tests/testcard"))
import card  # noqa: E402
import make  # noqa: E402
import read  # noqa: E402

# Seconds: of the clip, between sync frames, after the last of them when a player comes, and until it is measured.
CLIP, GOP, PHASE, SETTLES = 40, 10, 5, 8
JOINS = ("edge", "instant", "live")
# The lines of the screen that hold the card's number.
TOP, LINES = card.ROW_Y - 8, 2 * card.CELL


def clip(work):
    """An FLV file: the test card with a sync frame every 10 s, two B-frames, and a tone."""
    path = work / "clip.flv"
    encoder = subprocess.Popen(
        ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{card.WIDTH}x{card.HEIGHT}",
         "-r", str(card.FPS), "-i", "-", "-f", "lavfi", "-i", "sine=r=48000", "-t", str(CLIP), "-c:v", "libx264",
         "-preset", "veryfast", "-bf", "2", "-g", str(GOP * card.FPS), "-sc_threshold", "0", "-c:a", "aac", str(path)],
        stdin=subprocess.PIPE)
    for number in range(CLIP * card.FPS):
        encoder.stdin.write(make.draw(number))
    encoder.stdin.close()
    if encoder.wait() != 0:
        sys.exit("ffmpeg could not make the clip")
    return path


class Publisher:
    """Publishes the clip over and over in real time, and knows when which picture was sent."""

    def __init__(self, source, url):
        self.process = subprocess.Popen(
            ["ffmpeg", "-v", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i", source, "-c", "copy", "-f", "flv",
             "-stats_period", "0.1", "-progress", "pipe:1", url], stdout=subprocess.PIPE, text=True)
        self.began = None
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self):
        for line in self.process.stdout:
            name, _, value = line.strip().partition("=")
            if name == "out_time_us" and value.lstrip("-").isdigit():
                # Whatever delays the report makes this later.
                began = time.monotonic() - int(value) / 1e6
                self.began = min(began, self.began or began)

    def at(self):
        """Seconds of the clip that were sent."""
        return (time.monotonic() - self.began) % CLIP


def players(home):
    """By name, what plays a URL in a window at the corner of the screen, and the protocols that it knows."""
    # VLC refuses to run as root.
    nobody = pwd.getpwnam("nobody")
    apart = {"user": nobody.pw_uid, "group": nobody.pw_gid} if os.getuid() == 0 else {}
    (home / "vlc").mkdir()
    if apart:
        os.chown(home / "vlc", nobody.pw_uid, nobody.pw_gid)
    return {
        "ffplay": (["ffplay", "-v", "quiet", "-left", "0", "-top", "0", "-noborder"],
                   {}, ("rtmp", "rtsp")),
        "mpv": (["mpv", "--no-config", "--really-quiet", "--vo=x11", "--ao=null", "--geometry=0:0", "--osc=no"],
                {}, ("rtmp", "rtsp")),
        # Debian builds it without RTSP.
        "vlc": (["cvlc", "--quiet", "--vout=xcb_x11", "--aout=adummy", "--no-video-title-show"],
                apart | {"cwd": home / "vlc"}, ("rtmp",)),
        "gst-launch-1.0": (["gst-launch-1.0", "-q", "playbin", "video-sink=ximagesink",
                            "audio-sink=fakesink sync=true"], {}, ("rtmp", "rtsp")),
    }


def numbers(display):
    """The card's numbers that the screen shows, with the time, 40 times a second, without an end."""
    grab = subprocess.Popen(
        ["ffmpeg", "-v", "error", "-nostdin", "-f", "x11grab", "-draw_mouse", "0", "-framerate", "40",
         "-grab_y", str(TOP), "-video_size", f"{card.WIDTH}x{LINES}", "-i", display, "-f", "rawvideo", "-pix_fmt", "gray", "-"],
        stdout=subprocess.PIPE)
    try:
        while len(luma := grab.stdout.read(card.WIDTH * LINES)) == card.WIDTH * LINES:
            yield time.monotonic(), read.read(luma, card.WIDTH, LINES)
    finally:
        grab.kill()
        grab.wait()


def watch(command, options, environment, publisher):
    """Seconds until the first picture, and milliseconds behind: the median once it has settled."""
    wait_for("the phase", lambda: publisher.at() % GOP > PHASE and publisher.at() % GOP < PHASE + 0.2)
    since, first, behind = time.monotonic(), None, []
    shown = contextlib.closing(numbers(environment["DISPLAY"]))
    with running(*command, env=environment, stdout=subprocess.DEVNULL, **options), shown as seen:
        for now, number in seen:
            if number is not None:
                first = first or now - since
                if now - since > first + SETTLES:
                    behind.append((now - publisher.began - number / card.FPS) % CLIP * 1000)
            if len(behind) >= 120 or now - since > 3 * GOP + SETTLES:
                return first, statistics.median(behind) if behind else None
    sys.exit("the screen could not be read")


def joins(options):
    """Every player, protocol and `join`, in turn."""
    subprocess.run(["cargo", "build", "--release", "-q", "-p", "rtsp-gateway"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as stack:
        home = pathlib.Path(home)
        home.chmod(0o755)
        ports = {"rtmp": free_port(), "rtsp": free_port()}
        url = f"rtmp://127.0.0.1:{ports['rtmp']}/live/cam"
        outputs = {f"{protocol}-{join}": {"serve": f"{protocol}://127.0.0.1:{port}/{join}/cam", "join": join}
                   for protocol, port in ports.items() for join in JOINS}
        (home / "twin.json").write_text(json.dumps({"flows": {"cam": {"input": {"listen": url}, "outputs": outputs}}}))
        stack.enter_context(running(TARGET / "release/rtsp-gateway", "--twin", home / "twin.json", "--state-dir",
                                    home / "state", "--metrics-address", f"127.0.0.1:{free_port()}",
                                    stdout=subprocess.DEVNULL))
        wait_for("the server", lambda: listens(ports["rtmp"]) and listens(ports["rtsp"]))
        publisher = Publisher(clip(home), url)
        stack.callback(publisher.process.kill)
        server = stack.enter_context(running("Xvfb", "-displayfd", "1", "-ac", "-nolisten", "tcp", "-screen", "0",
                                             f"{card.WIDTH}x{card.HEIGHT}x24", stdout=subprocess.PIPE, text=True))
        environment = os.environ | {"DISPLAY": f":{server.stdout.readline().strip()}", "WAYLAND_DISPLAY": "",
                                    "SDL_AUDIODRIVER": "dummy", "HOME": str(home / "vlc")}
        wait_for("the publisher", lambda: publisher.began is not None)
        print(f"{'player':16} {'by':5} {'join':8} {'first, s':>9} {'behind, ms':>11}")
        for name, (command, how, protocols) in players(home).items():
            if not shutil.which(command[0]):
                print(f"{name} is missing")
                continue
            for protocol in protocols:
                for join in JOINS:
                    seen = [watch([*command, *named(name, f"{protocol}://127.0.0.1:{ports[protocol]}/{join}/cam")], how,
                                  environment, publisher) for _ in range(options.rounds)]
                    first, behind = ([one[at] for one in seen if one[at] is not None] for at in (0, 1))
                    print(f"{name:16} {protocol:5} {join:8} {median(first):>9} {median(behind, 0):>11}", flush=True)


def named(player, url):
    """Whatever is said of an address, by TCP."""
    if player.startswith("gst"):
        return [f"uri={url.replace('rtsp://', 'rtspt://')}"]
    by_tcp = ["-rtsp_transport", "tcp"] if player == "ffplay" and url.startswith("rtsp") else []
    return [*by_tcp, url]


def median(values, digits=2):
    return f"{statistics.median(values):.{digits}f}" if values else "none"
