"""mp4-recorder beside `ffmpeg -c copy` with faststart segments, and its uploads beside a plain HTTP PUT by curl."""

import contextlib
import functools
import json
import math
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import urllib.request

from servers import ROOT, TARGET, clip, cpu_seconds, free_port, listens, memory_kib, start, wait_for, written_bytes

SEGMENT_SECONDS = 10
CLIP_SECONDS = 20
TOOLS = ROOT / "tests/.tools"
# With AV_BIN_DIR nothing is built.
RECORDER = pathlib.Path(os.environ.get("AV_BIN_DIR", TARGET / "release")) / "mp4-recorder"
EXT4 = ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
# How a disk is made and mounted.
DISKS = {"ext4": (EXT4, []),
         "ext4-lazytime": (EXT4, ["-o", "lazytime"]),
         "ext4-fast-commit": ([*EXT4, "-O", "fast_commit"], []),
         "ext4-1k": ([*EXT4, "-b", "1024"], []),
         "ext4-1k-fast-commit": ([*EXT4, "-b", "1024", "-O", "fast_commit"], []),
         "xfs": (["mkfs.xfs", "-q"], [])}
# The account that every Azurite has.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextlib.contextmanager
def ended(processes):
    """Ends what was started, by its id."""
    try:
        yield processes
    finally:
        for process in reversed(processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def recorder(home, twin, sync=1):
    home.mkdir(parents=True, exist_ok=True)
    (home / "twin.json").write_text(json.dumps(twin | {"spool": {"megabytes": 4000, "minFreeMegabytes": 16, "syncSeconds": sync}}))
    metrics = free_port()
    process = start(0, RECORDER, "--twin", home / "twin.json", "--state-dir", home / "state",
                    "--metrics-address", f"127.0.0.1:{metrics}")
    wait_for("the recorder", lambda: listens(metrics))
    return process, metrics


def ours(home, count, segment=SEGMENT_SECONDS, sync=1):
    port = free_port()
    urls = [f"rtmp://127.0.0.1:{port}/live/cam{at}" for at in range(count)]
    disk = {"store": f"file://{home}/files", "segmentSeconds": segment}
    flows = {f"cam{at}": {"input": {"listen": url}, "outputs": {"disk": disk}} for at, url in enumerate(urls)}
    process, _ = recorder(home, {"flows": flows}, sync)
    wait_for("the recorder", lambda: listens(port))
    return [process], urls


def ffmpeg(home, count):
    ports = set()
    while len(ports) < count:
        ports.add(free_port())
    urls = [f"rtmp://127.0.0.1:{port}/live/cam" for port in ports]
    segments = ["-f", "segment", "-segment_time", SEGMENT_SECONDS, "-segment_format", "mp4", "-segment_format_options",
                "movflags=+faststart", "-reset_timestamps", "1"]
    processes = [start(0, "ffmpeg", "-v", "error", "-nostdin", "-listen", "1", "-f", "flv", "-i", url, "-map", "0",
                       "-c", "copy", *segments, home / f"{at}-%05d.mp4") for at, url in enumerate(urls)]
    # A look would be taken for the publisher: they listen when the publishers come through.
    time.sleep(2)
    return processes, urls


@contextlib.contextmanager
def own_disk(kind="ext4"):
    """A folder on a disk of its own, which is a file, and what has been written to that disk: of the file system's journal,
    too. Only root has one."""
    make, options = DISKS[kind]
    with tempfile.TemporaryDirectory() as home:
        image, folder = pathlib.Path(home) / "image", pathlib.Path(home) / "mounted"
        folder.mkdir()
        with image.open("wb") as file:
            file.truncate(1 << 30)
        run = functools.partial(subprocess.run, check=True)
        run([*make, image])
        loop = run(["losetup", "-f", "--show", image], capture_output=True, text=True).stdout.strip()
        try:
            run(["mount", *options, loop, folder])
            statistics = pathlib.Path("/sys/block") / pathlib.Path(loop).name / "stat"

            def on_disk():
                run(["sync", "-f", folder])
                return int(statistics.read_text().split()[6]) * 512
            try:
                yield folder, on_disk
            finally:
                run(["umount", folder])
        finally:
            run(["losetup", "-d", loop])


def row(name, contender, source, count, seconds, disk=None):
    """Prints what recording took, and gives the CPU time. The recorder's memory is without what it has before it records."""
    folder, on_disk = disk or (os.environ.get("AV_BENCH_DISK"), lambda: 0)
    with tempfile.TemporaryDirectory(dir=folder) as home, ended([]) as processes:
        servers, urls = contender(pathlib.Path(home), count)
        processes += servers
        idle = sum(memory_kib(server.pid) for server in servers)
        for url in urls:
            processes.append(start(1, "ffmpeg", "-v", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i", source,
                                   "-map", "0", "-c", "copy", "-f", "flv", url))
        time.sleep(SEGMENT_SECONDS + 5)
        running = [server for server in servers if server.poll() is None]
        took = lambda: (sum(cpu_seconds(server.pid) for server in running), sum(written_bytes(server.pid) for server in running))
        device = on_disk()
        (cpu, process), since = took(), time.monotonic()
        time.sleep(seconds)
        (cpu_after, process_after), wall = took(), time.monotonic() - since
        device = on_disk() - device
        alive = sum(process.poll() is None for process in processes)
        memory = sum(memory_kib(server.pid) for server in servers if server.poll() is None)
        each = (memory - (0 if contender is ffmpeg else idle)) / count / 1024
        cost = (cpu_after - cpu) / wall / count * 3600
        received = source.stat().st_size / CLIP_SECONDS * wall * count
        lost = "" if alive == len(processes) else f" {len(processes) - alive} ended: not comparable"
        print(f"{name:20} {count:7} {cost:18.1f} {each:15.2f} {(process_after - process) / received:10.2f} "
              f"{device / received if disk else math.nan:9.2f} {(cpu_after - cpu) / wall:6.0%}{lost}", flush=True)
        return cost


def upload(source):
    """A file of some 100 MB from the spool into Azurite, beside curl."""
    azurite, python = TOOLS / "azurite/node_modules/.bin/azurite-blob", TOOLS / "blobs/bin/python"
    if not azurite.exists() or not python.exists():
        print("Azurite is missing: no uploads")
        return
    with tempfile.TemporaryDirectory() as home, ended([]) as processes:
        home, port = pathlib.Path(home), free_port()
        processes.append(start(1, azurite, "--blobPort", port, "--location", home / "azurite", "--disableTelemetry",
                               "--silent", stdout=subprocess.DEVNULL))
        wait_for("Azurite", lambda: listens(port))
        connection = (f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
                      f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};")
        code = ("import sys; from datetime import *; from azure.storage.blob import *\n"
                "service = BlobServiceClient.from_connection_string(sys.argv[1], api_version='2023-11-03')\n"
                "service.create_container('recordings')\n"
                "print(generate_container_sas(service.account_name, 'recordings', account_key=service.credential.account_key,"
                "permission='rcw', expiry=datetime.now(timezone.utc) + timedelta(days=1)))")
        sas = subprocess.run([python, "-c", code, connection], check=True, capture_output=True, text=True).stdout.strip()
        # As fast as it is taken, into one file.
        (first,), (url,) = ours(home / "first", 1, segment=3600)
        processes.append(first)
        subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-stream_loop", "19", "-i", source, "-map", "0", "-c", "copy",
                        "-f", "flv", url], check=True)
        first.send_signal(signal.SIGTERM)
        first.wait(20)
        largest = max((home / "first").rglob("*.mp4"), key=lambda path: path.stat().st_size)
        curl = []
        for at in range(3):
            began = time.monotonic()
            subprocess.run(["curl", "-sf", "-T", largest, "-H", "x-ms-blob-type: BlockBlob", "-H", "x-ms-version: 2023-11-03",
                            f"http://127.0.0.1:{port}/{ACCOUNT}/recordings/curl{at}.mp4?{sas}"], check=True)
            curl.append(time.monotonic() - began)
        second = home / "second"
        (second / "state/spool").mkdir(parents=True)
        for at in range(3):
            (second / f"state/spool/{at + 1:012x}.cam.cloud.mp4").write_bytes(largest.read_bytes())
        store = {"store": f"azblob+http://127.0.0.1:{port}/{ACCOUNT}/recordings", "credentials": {"sas": sas}}
        process, metrics = recorder(second, {"flows": {"cam": {
            "input": {"listen": f"rtmp://127.0.0.1:{free_port()}/live/cam"}, "outputs": {"cloud": store}}}})
        processes.append(process)

        def figure(name):
            text = urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics").read().decode()
            return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+]+)$", text, re.M))
        wait_for("three uploads", lambda: figure("av_segments_stored_total") == 3, 120)
        ours_took, curl_took = figure("av_segment_upload_seconds_sum") / 3, sum(curl) / 3
        size = largest.stat().st_size / 1e6
        print(f"upload of {size:.0f} MB: {size / ours_took:.0f} MB/s, curl {size / curl_took:.0f} MB/s, "
              f"ratio {curl_took / ours_took:.2f}")


def begin():
    """Builds the recorder, and prints what the columns are."""
    if "AV_BIN_DIR" not in os.environ:
        subprocess.run(["cargo", "build", "--release", "-q", "-p", "mp4-recorder"], cwd=ROOT, check=True)
    print(f"{'server':20} {'streams':>7} {'CPU s/stream-hour':>18} {'MiB/stream':>15} {'written/in':>10} {'disk/in':>9} {'busy':>6}")


def slow():
    """A stream of which each commit is small."""
    return clip("160k", size="320x180", pace=15, sound="24k")


def recording_disks(options):
    """Slow streams on disks of their own, in files of a minute."""
    begin()
    with slow() as source:
        for kind in options.disks:
            for count in options.streams:
                with own_disk(kind) as disk:
                    row(kind, functools.partial(ours, segment=60), source, count, max(60, options.seconds), disk)


def recording(options):
    """Rows for each number of streams, then the uploads, then one slow stream."""
    begin()
    with clip() as source:
        for count in options.streams:
            own = row("mp4-recorder", ours, source, count, options.seconds)
            theirs = row("ffmpeg", ffmpeg, source, count, options.seconds)
            print(f"{'ratio':20} {count:7} {own / theirs if theirs else 0:18.2f}", flush=True)
        upload(source)
    if os.geteuid() != 0:
        print("no disk can be mounted: what arrives on it is not known")
    with slow() as source:
        print("190 kbit/s, where each commit is small, in files of a minute, by syncSeconds:")
        for count, sync in ((1, 1), (6, 1), (1, 2), (1, 4)):
            with own_disk() if os.geteuid() == 0 else contextlib.nullcontext() as disk:
                # All that a file takes is in it.
                row(f"every {sync} s", functools.partial(ours, segment=60, sync=sync), source, count,
                    max(60, options.seconds), disk)
