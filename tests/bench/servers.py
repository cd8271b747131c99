"""The servers that are compared, what they are measured by, and what loads them."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
NGINX_MODULE = "/usr/lib/nginx/modules/ngx_rtmp_module.so"
TICKS = os.sysconf("SC_CLK_TCK")
LOAD = TARGET / "release/rtmp-load"
RTSP_LOAD = TARGET / "release/rtsp-load"
# The one that has the distribution's bindings.
SYSTEM_PYTHON = "/usr/bin/python3"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, ready, seconds=30):
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            sys.exit(f"{what}: not within {seconds} s")
        time.sleep(0.05)


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def start(core, *command, **options):
    return subprocess.Popen(["taskset", "-c", str(core), *map(str, command)], stderr=subprocess.DEVNULL, **options)


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def written_bytes(pid):
    """Bytes that a process made the disk write, without what was deleted before it got there."""
    counts = dict(line.split(": ") for line in pathlib.Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(counts["write_bytes"]) - int(counts["cancelled_write_bytes"])


def memory_kib(pid, field="VmRSS"):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])


def one_flow(base):
    """live/cam, for any number of players."""
    return {"flows": {"cam": {"input": {"listen": f"{base}/cam"}, "outputs": {"all": {"serve": f"{base}/cam"}}}}}


def any_name(base):
    """Whatever is published below live/, as nginx does."""
    return {"flows": {"any": {"input": {"listen": f"{base}/*", "maxInstances": 1000},
                              "outputs": {"all": {"serve": f"{base}/*"}}}}}


def splitter(binary, make_twin):
    """Starts that rtmp-splitter with a twin."""
    def run(home, port):
        (home / "twin.json").write_text(json.dumps(make_twin(f"rtmp://127.0.0.1:{port}/live")))
        return start(0, binary, "--twin", home / "twin.json", "--state-dir", home / "state",
                     "--metrics-address", f"127.0.0.1:{free_port()}")
    return run


def nginx(home, port, core=0):
    (home / "nginx.conf").write_text(f"""load_module {NGINX_MODULE};
daemon off; master_process off; worker_processes 1; pid {home}/pid; error_log /dev/null;
events {{ worker_connections 4096; }}
rtmp {{ server {{ listen 127.0.0.1:{port}; chunk_size 4096; application live {{ live on; }} }} }}
""")
    return start(core, "nginx", "-p", home, "-c", home / "nginx.conf", "-e", "/dev/null")


def gateway(binary):
    """Starts rtsp-gateway; it takes the stream by RTMP on the next port."""
    def run(home, port):
        twin = {"flows": {"cam": {
            "input": {"listen": f"rtmp://127.0.0.1:{port + 1}/live/cam"},
            "outputs": {"all": {"serve": f"rtsp://127.0.0.1:{port}/live/cam",
                                "udpPorts": f"{(port + 2) & ~1}-{((port + 2) & ~1) + 1}"}}}}}
        (home / "twin.json").write_text(json.dumps(twin))
        return start(0, binary, "--twin", home / "twin.json", "--state-dir", home / "state",
                     "--metrics-address", f"127.0.0.1:{free_port()}")
    return run


def gstreamer(home, port):
    """Starts GStreamer's RTSP server, one pipeline for all players. It pulls the stream from nginx, on the next port."""
    source = nginx(home, port + 1, core=1)
    wait_for("nginx", lambda: listens(port + 1))
    server = start(0, SYSTEM_PYTHON, ROOT / "tests/bench/gstreamer.py", port, f"rtmp://127.0.0.1:{port + 1}/live/cam")
    server.source = source
    return server


def has_gstreamer():
    needed = "import gi; gi.require_version('GstRtspServer', '1.0')"
    return subprocess.run([SYSTEM_PYTHON, "-c", needed], stderr=subprocess.DEVNULL).returncode == 0


def has_nginx():
    return shutil.which("nginx") and os.path.exists(NGINX_MODULE)


def contenders(options, make_twin, compared=True):
    """By name, what starts each: ours, the one that --baseline names, and nginx."""
    found = {"rtmp-splitter": splitter(TARGET / "release/rtmp-splitter", make_twin)}
    if options.baseline:
        found["baseline"] = splitter(options.baseline, make_twin)
    if not compared:
        return found
    if has_nginx():
        found["nginx-rtmp"] = nginx
    else:
        print("nginx with its RTMP module is missing: no comparison")
    return found


def build(service="rtmp-splitter"):
    subprocess.run(["cargo", "build", "--release", "-q", "-p", service, "-p", "av-bench"], cwd=ROOT, check=True)


@contextlib.contextmanager
def clip(rate="2M", size="1280x720", pace=30, sound="128k"):
    """An FLV file of 20 s: 720p, 30 pictures a second, 2 Mbit/s, GOP of 2 s, AAC: what a camera sends. In all 2.15 Mbit/s."""
    with tempfile.TemporaryDirectory() as work:
        path = pathlib.Path(work) / "clip.flv"
        subprocess.run(
            ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", f"testsrc2=s={size}:r={pace},noise=alls=12:allf=t",
             "-f", "lavfi", "-i", "sine=440:r=48000", "-t", "20", "-c:v", "libx264", "-preset", "veryfast", "-g", str(2 * pace),
             "-b:v", rate, "-maxrate", rate, "-bufsize", "1M", "-c:a", "aac", "-b:a", sound, "-ac", "2", str(path)],
            check=True)
        yield path


def measure(server, source, players, seconds, *load_options):
    """Runs a server of RTMP under load."""
    def load(port):
        return [LOAD, f"rtmp://127.0.0.1:{port}/live/cam", players, seconds, "--clip", source, "--stamps", "yes", *load_options]
    return loaded(server, players, seconds, load)


def measure_rtsp(server, players, seconds, transport, source):
    """Runs a server of RTSP under load; `source` is published by RTMP to the next port. Players come over two GOPs."""
    def load(port):
        return [RTSP_LOAD, f"rtsp://127.0.0.1:{port}/live/cam", players, seconds, transport, 4000]

    def publish(port):
        wait_for("the way in", lambda: listens(port + 1))
        return [LOAD, f"rtmp://127.0.0.1:{port + 1}/live/cam", 0, seconds + 120, "--clip", source, "--stamps", "yes"]
    return loaded(server, players, seconds, load, publish)


def loaded(server, players, seconds, load_command, publish_command=None):
    """What a server took from when all players had media until just before they went."""
    with tempfile.TemporaryDirectory() as home:
        home, port = pathlib.Path(home), free_port()
        process, load, publisher = server(home, port), None, None
        try:
            wait_for("the server", lambda: listens(port))
            idle = memory_kib(process.pid)
            if publish_command:
                publisher = start(1, *publish_command(port), stdout=subprocess.DEVNULL)
            load = start(1, *load_command(port), stdout=subprocess.PIPE, text=True)
            joined = json.loads(load.stdout.readline() or sys.exit("the players did not come to playing"))
            before, since = cpu_seconds(process.pid), time.monotonic()
            time.sleep(seconds - 1)
            cpu, wall = cpu_seconds(process.pid) - before, time.monotonic() - since
            memory, most = memory_kib(process.pid), memory_kib(process.pid, "VmHWM")
            moved = json.loads(load.stdout.readline() or "{}")
            load.wait()
            return {
                "cpu": cpu * 1000 / wall, "busy": cpu / wall, "idle": idle, "memory": memory, "most": most,
                "rate": moved.get("bytes", 0) * 8 / moved.get("seconds", 1) / max(players, 1) / 1e6,
                "first": joined["meanFirstMilliseconds"], "most_first": joined.get("mostFirstMilliseconds", 0),
                "lost": moved.get("lost", -1), "cut": moved.get("cut", -1),
                "clock": moved.get("clock", 0) / 1000, "ages": moved.get("ages", [-1, -1, -1]),
            }
        finally:
            for child in (load, publisher, process, getattr(process, "source", None)):
                if child and child.poll() is None:
                    child.send_signal(signal.SIGTERM)
                    try:
                        child.wait(10)
                    except subprocess.TimeoutExpired:
                        child.kill()
