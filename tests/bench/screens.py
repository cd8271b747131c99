"""What a 1080p60 stream on a screen costs: the renderer beside other programs that show it, on the same X server."""

import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

from servers import ROOT, TARGET, cpu_seconds, free_port, listens, memory_kib, wait_for

SIZE = "1920x1080"


def clip(work):
    """An FLV file: 1080p, 60 pictures a second, 6 Mbit/s, GOP of 2 s, no sound."""
    path = work / "clip.flv"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", f"testsrc2=s={SIZE}:r=60,noise=alls=6:allf=t", "-t", "10",
         "-c:v", "libx264", "-preset", "veryfast", "-g", "120", "-b:v", "6M", "-pix_fmt", "yuv420p", str(path)],
        check=True)
    return path


@contextlib.contextmanager
def running(*command, **options):
    """A program, until it is no longer needed."""
    process = subprocess.Popen([*map(str, command)], **({"stderr": subprocess.DEVNULL} | options))
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def contenders(home, url, port):
    """By name, the command that shows the stream, and what is needed for it."""
    (home / "twin.json").write_text(json.dumps({"flows": {"cam": {
        "input": {"pull": url}, "outputs": {"screen": {"render": "display://x11", "audio": False}}}}}))
    pipeline = (f"rtmp2src location={url} ! flvdemux ! queue ! h264parse ! avdec_h264 ! videoconvert ! videoscale ! "
                "ximagesink sync=true")
    found = {"renderer": [TARGET / "release/renderer", "--twin", home / "twin.json", "--state-dir", home / "state",
                          "--metrics-address", f"127.0.0.1:{port}"]}
    if shutil.which("gst-launch-1.0"):
        found["gst-launch"] = ["gst-launch-1.0", "-q", *pipeline.split()]
    if shutil.which("ffplay"):
        found["ffplay"] = ["ffplay", "-v", "quiet", "-an", "-fs", url]
    return found


def rendered(port):
    """Pictures that the renderer's display took, and those that were left out."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=10) as answer:
        screen = json.loads(answer.read())["flows"]["cam"]["outputs"]["screen"]
    return screen.get("rendered", 0), screen.get("framesDropped", 0)


def screens(options):
    """The CPU time of each program for a second of the stream, the X server's beside it, in turn."""
    subprocess.run(["cargo", "build", "--release", "-q", "-p", "rtmp-splitter", "-p", "renderer"], cwd=ROOT, check=True)
    print(f"{'program':12} {'CPU ms/s':>9} {'X server ms/s':>14} {'resident MB':>12} {'pictures/s':>11} {'left out':>9}")
    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as stack:
        home, port = pathlib.Path(home), free_port()
        url = f"rtmp://127.0.0.1:{port}/live/cam"
        (home / "splitter.json").write_text(json.dumps({"flows": {"cam": {
            "input": {"listen": url}, "outputs": {"all": {"serve": url}}}}}))
        stack.enter_context(running(TARGET / "release/rtmp-splitter", "--twin", home / "splitter.json", "--state-dir",
                                    home / "splitter", "--metrics-address", f"127.0.0.1:{free_port()}"))
        wait_for("the server", lambda: listens(port))
        stack.enter_context(running("ffmpeg", "-v", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i", clip(home),
                                    "-c", "copy", "-f", "flv", url))
        server = stack.enter_context(running("Xvfb", "-displayfd", "1", "-screen", "0", f"{SIZE}x24", "-nolisten", "tcp",
                                             stdout=subprocess.PIPE, text=True))
        environment = os.environ | {"DISPLAY": f":{server.stdout.readline().strip()}", "WAYLAND_DISPLAY": ""}
        found, metrics = {}, free_port()
        for _ in range(options.rounds):
            for name, command in contenders(home, url, metrics).items():
                with running(*command, env=environment, stdout=subprocess.DEVNULL) as process:
                    # Until it has started, joined and caught up.
                    time.sleep(8)
                    ours = name == "renderer"
                    shown, left_out = rendered(metrics) if ours else (0, 0)
                    before = [cpu_seconds(one.pid) for one in (process, server)]
                    since = time.monotonic()
                    time.sleep(options.seconds)
                    wall = time.monotonic() - since
                    if process.poll() is not None:
                        sys.exit(f"{name} ended with {process.returncode}: {' '.join(map(str, command))}")
                    own, x = ((cpu_seconds(one.pid) - was) * 1000 / wall for one, was in zip((process, server), before))
                    pictures = "", ""
                    if ours:
                        now = rendered(metrics)
                        pictures = f"{(now[0] - shown) / wall:.1f}", now[1] - left_out
                    print(f"{name:12} {own:9.0f} {x:14.0f} {memory_kib(process.pid) * 1024 / 1e6:12.1f} "
                          f"{pictures[0]:>11} {pictures[1]:>9}", flush=True)
                    found.setdefault(name, []).append(own + x)
        ours = statistics.median(found.pop("renderer"))
        for name, theirs in found.items():
            print(f"ratio to {name:12} {ours / statistics.median(theirs):.2f} (with the X server's time)")
