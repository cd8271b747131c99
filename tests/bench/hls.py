"""HLS: hls-gateway beside nginx, which serves the same bytes from memory, and beside the HLS of nginx's RTMP module."""

import contextlib
import json
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from servers import (LOAD, NGINX_MODULE, TARGET, clip, cpu_seconds, free_port, has_nginx, listens, memory_kib, start,
                     wait_for, written_bytes)

HLS_LOAD = TARGET / "release/hls-load"
TMPFS = "/dev/shm"
STREAMS, VIEWERS, CONNECTIONS = 20, 200, 16
# Of the stream whose memory is measured, and a bound of the cache.
WINDOW, CACHE = 30, 24
# Seconds over which is counted what reaches the disk, once as much is deleted as is written.
SETTLED = 20


class Server:
    """hls-gateway or nginx, on core 0: takes streams by RTMP at `ingest`, answers HTTP at `web`."""

    def __init__(self, process, rtmp, http):
        self.process, self.http = process, http
        self.ingest, self.web = f"rtmp://127.0.0.1:{rtmp}/live/cam", f"http://127.0.0.1:{http}/live"

    def used(self):
        return cpu_seconds(self.process.pid)


@contextlib.contextmanager
def ended(process):
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def gateway(binary, cache=None, **options):
    """hls-gateway for any stream below live/. `cache`: its `cacheMegabytes`."""
    with tempfile.TemporaryDirectory() as home:
        home, rtmp, http = pathlib.Path(home), free_port(), free_port()
        twin = {"flows": {"any": {
            "input": {"listen": f"rtmp://127.0.0.1:{rtmp}/live/*"},
            "outputs": {"web": {"serve": f"http://127.0.0.1:{http}/live/*", **options}}}}}
        if cache:
            twin["cacheMegabytes"] = cache
        (home / "twin.json").write_text(json.dumps(twin))
        with ended(start(0, binary, "--twin", home / "twin.json", "--state-dir", home / "state",
                         "--metrics-address", f"127.0.0.1:{free_port()}")) as process:
            wait_for("hls-gateway", lambda: listens(rtmp))
            yield Server(process, rtmp, http)


@contextlib.contextmanager
def nginx(files="off"):
    """nginx that serves a folder in memory, and writes its RTMP module's HLS there: segments of 2 s. `files`: which it keeps
    open, and does not look at again for a minute."""
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory(dir=TMPFS) as root:
        home, rtmp, http = pathlib.Path(home), free_port(), free_port()
        temporary = "".join(f"{name}_temp_path {home}/{name};" for name in
                            ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (home / "nginx.conf").write_text(f"""load_module {NGINX_MODULE};
daemon off; master_process off; worker_processes 1; pid {home}/pid; error_log /dev/null; user root;
events {{ worker_connections 4096; }}
rtmp {{ server {{ listen 127.0.0.1:{rtmp}; chunk_size 4096;
    application live {{ live on; hls on; hls_path {root}/live; hls_fragment 2s; hls_playlist_length {WINDOW}s; }} }} }}
http {{ access_log off; {temporary} sendfile on; tcp_nopush on; tcp_nodelay on;
    open_file_cache {files}; keepalive_requests 1000000000; root {root};
    server {{ listen 127.0.0.1:{http}; }} }}
""")
        (pathlib.Path(root) / "live").mkdir()
        with ended(start(0, "nginx", "-p", home, "-c", home / "nginx.conf", "-e", "/dev/null")) as process:
            wait_for("nginx", lambda: listens(http) and listens(rtmp))
            server = Server(process, rtmp, http)
            server.root = pathlib.Path(root)
            yield server


@contextlib.contextmanager
def published(server, source, *options):
    """The clip is published in real time; its pictures say when they were sent."""
    load = start(1, LOAD, server.ingest, 0, 100_000, "--clip", source, "--stamps", "yes", *options,
                 stdout=subprocess.DEVNULL)
    with ended(load):
        yield


def fetched(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def text_of(url):
    """What is at that address once it is there."""
    found = []

    def there():
        try:
            found.append(fetched(url).decode())
        except OSError:
            return False
        return True
    wait_for(url, there, 60)
    return found[0]


def media(server):
    """URL of the media playlist of live/cam, and its text."""
    url = f"{server.web}/cam/" + text_of(f"{server.web}/cam/index.m3u8").splitlines()[-1]
    return url, text_of(url)


def loaded(server, what, url, count, seconds):
    """What clients say, and the CPU that the server took meanwhile."""
    with ended(start(1, HLS_LOAD, what, url, count, seconds, stdout=subprocess.PIPE, text=True)) as load:
        load.stdout.readline() or sys.exit("the clients did not come to it")
        before, since = server.used(), time.monotonic()
        said = json.loads(load.stdout.readline() or "{}") or sys.exit("the clients failed")
        wall = time.monotonic() - since
        cpu = server.used() - before
        return said | {"cpu": cpu, "busy": cpu / wall}


def segment_of(_, text):
    return next(line for line in text.splitlines() if line.endswith(".m4s"))


def part_of(_, text):
    """The newest, which stays longest."""
    return [line.split('"')[1] for line in text.splitlines() if line.startswith("#EXT-X-PART:")][-1]


def playlist_of(url, text):
    """With what is there already."""
    number = next(line.split(":")[1] for line in text.splitlines() if line.startswith("#EXT-X-MEDIA-SEQUENCE"))
    return f"{url.rsplit('/', 1)[1]}?_HLS_msn={number}&_HLS_part=0"


ASKED = {"a segment": segment_of, "a part": part_of, "a playlist (blocking)": playlist_of}


def requests(options, binaries, source):
    print(f"{'requests for':26} {'server':12} {'answers/s':>10} {'busy':>5} {'answers per core-s':>19} {'MB/s':>7}")
    for name, binary in binaries.items():
        with gateway(binary, windowSeconds=120) as ours, published(ours, source), nginx("max=100") as theirs:
            wait_for("some segments", lambda: media(ours)[1].count("#EXTINF") >= 3)
            for what, found in ASKED.items():
                rates = {name: [], "nginx": []}
                for _ in range(options.rounds):
                    # Parts stay for some seconds only.
                    uri = found(*media(ours))
                    file = theirs.root / "live" / uri.split("?")[0]
                    file.write_bytes(fetched(f"{ours.web}/cam/{uri}"))
                    file.chmod(0o644)
                    for who, server, path in ((name, ours, f"cam/{uri}"), ("nginx", theirs, uri)):
                        one = loaded(server, "requests", f"{server.web}/{path}", CONNECTIONS, options.seconds)
                        rates[who].append(one["answers"] / one["cpu"])
                        print(f"{what:26} {who:12} {one['answers'] / one['seconds']:10.0f} {one['busy']:5.0%} "
                              f"{rates[who][-1]:19.0f} {one['bytes'] / one['seconds'] / 1e6:7.0f}", flush=True)
                ours_rate, theirs_rate = (statistics.median(rates[who]) for who in (name, "nginx"))
                print(f"{what:26} ratio to nginx, a core: {ours_rate / theirs_rate:.2f} (bar: 1, more is better)")


def packaging(options, binaries, source):
    print(f"{'packaging':26} {'streams':>7} {'CPU ms/stream-s':>16} {'busy':>5} {'resident MB':>12}")
    servers = {"nginx-rtmp": nginx}
    for name, binary in binaries.items():
        for variant in ("lowLatency", "fmp4", "mpegts"):
            servers[f"{name} {variant}"] = lambda binary=binary, variant=variant: gateway(binary, variant=variant)
    found = {name: [] for name in servers}
    for _ in range(options.rounds):
        for name, make in servers.items():
            with make() as server, published(server, source, "--streams", STREAMS):
                # All are there, and the first segments are made.
                time.sleep(6)
                before, since = server.used(), time.monotonic()
                time.sleep(options.seconds)
                wall, cpu = time.monotonic() - since, server.used() - before
                found[name].append(cpu * 1000 / wall / STREAMS)
                print(f"{name:26} {STREAMS:7} {found[name][-1]:16.2f} {cpu / wall:5.0%} "
                      f"{memory_kib(server.process.pid) * 1024 / 1e6:12.1f}", flush=True)
    theirs = statistics.median(found.pop("nginx-rtmp"))
    for name, cpu in found.items():
        print(f"{name:26} ratio to nginx-rtmp: {statistics.median(cpu) / theirs:.2f}")


def edge(options, binaries, source):
    print("age in ms when it has come: the newest picture of a part or segment, and its oldest: median, p99, most")

    def row(name, server, url):
        one = loaded(server, "follow", url, 1, options.seconds)
        newest, oldest = (" ".join(f"{age:8.1f}" for age in one[what]) for what in ("newest", "oldest"))
        print(f"{name:26} {one['pieces']:5} pieces: {newest}; {oldest}", flush=True)
    for name, binary in binaries.items():
        for variant in ("lowLatency", "fmp4"):
            with gateway(binary, variant=variant) as server, published(server, source):
                row(f"{name} {variant}", server, media(server)[0])
    with nginx() as server, published(server, source):
        url = f"{server.web}/cam.m3u8"
        text_of(url)
        row("nginx-rtmp, 2 s", server, url)


def memory(_, binaries):
    print(f"memory with a window of {WINDOW} s at 5 Mbit/s; what was listed stays for as long again")
    with clip("5M") as source:
        for name, binary in binaries.items():
            for cache in (None, CACHE):
                with gateway(binary, cache, windowSeconds=WINDOW) as server:
                    idle = memory_kib(server.process.pid) * 1024 / 1e6
                    with published(server, source):
                        time.sleep(2.5 * WINDOW + 10)
                        url, text = media(server)
                        uris = [line for line in text.splitlines() if line.endswith(".m4s")]
                        sizes = [len(fetched(f"{server.web}/cam/{uri}")) for uri in uris]
                        # What was listed before that, as long as it can be fetched.
                        first, before = int(uris[0].split(".")[0]), []
                        with contextlib.suppress(urllib.error.HTTPError):
                            while True:
                                before.append(len(fetched(f"{server.web}/cam/{first - len(before) - 1}.m4s")))
                        written = written_bytes(server.process.pid)
                        time.sleep(SETTLED)
                        written = (written_bytes(server.process.pid) - written) / SETTLED / 1e3
                        listed, resident = sum(sizes) / 1e6, memory_kib(server.process.pid) * 1024 / 1e6
                    print(f"{name}, cacheMegabytes {cache or 'as it is'}: idle {idle:.1f} MB, resident {resident:.1f} MB; "
                          f"{len(sizes)} segments listed, {listed:.1f} MB, and {len(before)} that were, "
                          f"{sum(before) / 1e6:.1f} MB; {written:.1f} kB/s reach the disk; "
                          f"1.5 times what is listed and 10 MB: {1.5 * listed + 10:.1f} MB", flush=True)


def viewers(options, binaries, source):
    print(f"{VIEWERS} viewers of low latency; late: a part whose newest picture is older than the part is long")
    for name, binary in binaries.items():
        for _ in range(options.rounds):
            with gateway(binary) as server, published(server, source):
                one = loaded(server, "follow", media(server)[0], VIEWERS, options.seconds)
                median, p99, most = one["newest"]
                print(f"{name:26} {one['pieces']} parts, {one['late']} late, {one['lost']} viewers lost; age of the newest "
                      f"picture {median:.0f} ms, p99 {p99:.0f}, most {most:.0f}; busy {one['busy']:.0%}, "
                      f"{one['cpu'] * 1000 / one['seconds'] / VIEWERS:.2f} CPU ms/viewer-s", flush=True)


def hls(options):
    if not has_nginx():
        sys.exit("nginx with its RTMP module is missing")
    binaries = {"hls-gateway": TARGET / "release/hls-gateway"}
    if options.baseline:
        binaries["baseline"] = options.baseline
    with clip() as source:
        for row in (requests, packaging, edge, viewers):
            row(options, binaries, source)
    memory(options, binaries)
