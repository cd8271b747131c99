"""What a 1080p60 stream on a screen costs: the renderer beside other programs that show it, on the same X server; and
what four streams of 720p30 cost that share the screen."""

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
# Debian's packages of the elements of the pipeline beside the renderer.
PACKAGES = {"rtmp2src": "gstreamer1.0-plugins-bad", "flvdemux": "gstreamer1.0-plugins-good",
            "avdec_h264": "gstreamer1.0-libav", "videoconvert": "gstreamer1.0-plugins-base", "ximagesink": "gstreamer1.0-x"}


def clip(work, size, rate, bits):
    """An FLV file of that size, pictures a second and bits a second: GOP of 2 s, no sound."""
    path = work / f"{size}.flv"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate},noise=alls=6:allf=t", "-t", "10",
         "-c:v", "libx264", "-preset", "veryfast", "-g", f"{2 * rate}", "-b:v", bits, "-pix_fmt", "yuv420p", str(path)],
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


def renderer(home, name, flows, port):
    """The renderer of these flows: what each pulls, and what its output has beside the display."""
    flows = {flow: {"input": {"pull": url}, "outputs": {"screen": {"render": "display://x11", "audio": False, **output}}}
             for flow, (url, output) in flows.items()}
    (home / f"{name}.json").write_text(json.dumps({"flows": flows}))
    return [TARGET / "release/renderer", "--twin", home / f"{name}.json", "--state-dir", home / "state",
            "--metrics-address", f"127.0.0.1:{port}"]


def contenders(home, url, small, port):
    """By name, the command that shows the stream."""
    pipeline = (f"rtmp2src location={url} ! flvdemux ! queue ! h264parse ! avdec_h264 ! videoconvert ! videoscale ! "
                "ximagesink sync=true")
    cells = {f"cam{row}{column}": (small, {"layout": {"row": row, "column": column, "rows": 2, "columns": 2}})
             for row in (1, 2) for column in (1, 2)}
    found = {"renderer": renderer(home, "whole", {"cam": (url, {})}, port),
             "four cells": renderer(home, "cells", cells, port)}
    missing = missing_packages()
    if missing:
        print(f"gst-launch-1.0 is skipped: it needs the Debian packages {' '.join(missing)}")
    else:
        found["gst-launch"] = ["gst-launch-1.0", "-q", *pipeline.split()]
    if shutil.which("ffplay"):
        found["ffplay"] = ["ffplay", "-v", "quiet", "-an", "-fs", url]
    else:
        print("ffplay is skipped: it needs the Debian package ffmpeg")
    return found


def missing_packages():
    """Those that the pipeline of gst-launch-1.0 needs."""
    if not shutil.which("gst-inspect-1.0"):
        return ["gstreamer1.0-tools", *sorted(set(PACKAGES.values()))]
    exists = {name: subprocess.run(["gst-inspect-1.0", "--exists", name]).returncode == 0 for name in PACKAGES}
    return sorted({package for name, package in PACKAGES.items() if not exists[name]})


def rendered(port):
    """Pictures that the renderer's display took, and those that were left out."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=10) as answer:
        screens = [flow["outputs"]["screen"] for flow in json.loads(answer.read())["flows"].values()]
    return tuple(sum(screen.get(name, 0) for screen in screens) for name in ("rendered", "framesDropped"))


def screens(options):
    """The CPU time of each program for a second of the stream, the X server's beside it, in turn."""
    absent = [program for program in ("ffmpeg", "Xvfb") if not shutil.which(program)]
    if absent:
        print(f"screens are skipped: they need the Debian packages {' '.join(name.lower() for name in absent)}")
        return
    subprocess.run(["cargo", "build", "--release", "-q", "-p", "rtmp-splitter", "-p", "renderer"], cwd=ROOT, check=True)
    print(f"{'program':12} {'CPU ms/s':>9} {'X server ms/s':>14} {'resident MB':>12} {'pictures/s':>11} {'left out':>9}")
    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as stack:
        home, port = pathlib.Path(home), free_port()
        url, small = f"rtmp://127.0.0.1:{port}/live/cam", f"rtmp://127.0.0.1:{port}/live/small"
        (home / "splitter.json").write_text(json.dumps({"flows": {
            name: {"input": {"listen": at}, "outputs": {"all": {"serve": at}}} for name, at in (("cam", url), ("small", small))}}))
        stack.enter_context(running(TARGET / "release/rtmp-splitter", "--twin", home / "splitter.json", "--state-dir",
                                    home / "splitter", "--metrics-address", f"127.0.0.1:{free_port()}"))
        wait_for("the server", lambda: listens(port))
        for at, file in ((url, clip(home, SIZE, 60, "6M")), (small, clip(home, "1280x720", 30, "3M"))):
            stack.enter_context(running("ffmpeg", "-v", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i", file,
                                        "-c", "copy", "-f", "flv", at))
        server = stack.enter_context(running("Xvfb", "-displayfd", "1", "-screen", "0", f"{SIZE}x24", "-nolisten", "tcp",
                                             stdout=subprocess.PIPE, text=True))
        environment = os.environ | {"DISPLAY": f":{server.stdout.readline().strip()}", "WAYLAND_DISPLAY": ""}
        found, metrics = {}, free_port()
        commands = contenders(home, url, small, metrics)
        for _ in range(options.rounds):
            for name, command in commands.items():
                with running(*command, env=environment, stdout=subprocess.DEVNULL) as process:
                    # Until it has started, joined and caught up.
                    time.sleep(8)
                    ours = name in ("renderer", "four cells")
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
        found.pop("four cells")
        for name, theirs in found.items():
            print(f"ratio to {name:12} {ours / statistics.median(theirs):.2f} (with the X server's time)")
