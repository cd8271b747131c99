#!/usr/bin/env python3
"""Builds the image of every service for every architecture, and runs it, as far as that goes without an engine.

    tests/image/check.py [--dockerfile FILE] [--architecture amd64|arm64] [--long] [--only-its-own]

The instructions of modules/shared/Dockerfile are carried out one by one (build.py); all services of an architecture
come from one build of the workspace. They are then started together, as edge-config/standalone/compose.yaml does
(container.py): a file goes through one service after the other, and what a player gets must be what was in the file.
Programs of another architecture run in Debian's qemu-user, with --long or $AV_LONG: to compile for one takes as long as
for this machine's own. The renderer has a Dockerfile of its own; it is built and run (renderer.py) with --long, for this
machine's architecture. Nothing of this machine is changed: mounts, processes and network are of namespaces of their own.

Exit code 0: all is well, or was skipped (a line `SKIPPED ...` in $AV_SKIPPED); 1: it is not."""

import argparse
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import time
import urllib.request

import network
import renderer
from build import Builder, run
from container import Container
from dockerfile import DockerfileError

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))
from skipped import skip  # noqa: E402

TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
DOCKERFILE = ROOT / "modules/shared/Dockerfile"
TWINS = ROOT / "edge-config/standalone/twins"
PAGES = "hls-gateway"
PAGES_LOCK = ROOT / "modules" / PAGES / "pages/package-lock.json"
CARD = ROOT / "edge-config/testcard.mp4"
# By the names of module.json: those of Docker and ELF, and the emulator.
ARCHITECTURES = {
    "amd64": ("amd64", "X86-64", "qemu-x86_64-static"),
    "arm64v8": ("arm64", "AArch64", "qemu-aarch64-static"),
}
NATIVE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine())
# What all media of the samples goes through.
CENTRE = "rtmp-splitter"
LARGEST = 12_000_000
BUILD = "1mage00"


class Failed(Exception):
    """What is not as it must be."""


#: What ends a check without being a fault of this script.
TROUBLE = (Failed, DockerfileError, OSError, subprocess.SubprocessError)


def check(holds, complaint):
    if not holds:
        raise Failed(complaint)


def wait_for(what, look, seconds=60):
    """What `look` finds at last."""
    deadline = time.monotonic() + seconds
    while True:
        found, told = look()
        if found:
            return found
        check(time.monotonic() < deadline, f"{what}: not within {seconds} s: {told}")
        time.sleep(0.1)


class Image:
    """A built image: for which architecture, of which version, its root folder, its configuration."""

    def __init__(self, architecture, version, root, config):
        self.architecture, self.version, self.root, self.config = architecture, version, root, config


def services():
    """Name, version, build arguments, and Dockerfiles by platform of every service, as its module.json has them."""
    for file in sorted((ROOT / "modules").glob("*/module.json")):
        image = json.loads(file.read_text())["image"]
        words = " ".join(image["buildOptions"]).split()
        check(words[::2] == ["--build-arg"] * (len(words) // 2), f"{file}: unknown buildOptions {words}")
        arguments = dict(word.split("=", 1) for word in words[1::2])
        check((file.parent / image["contextPath"]).resolve() == ROOT, f"{file}: contextPath is not the repository")
        platforms = {name: (file.parent / path).resolve() for name, path in image["tag"]["platforms"].items()}
        check(platforms.keys() == ARCHITECTURES.keys(), f"{file}: platforms {list(platforms)}")
        yield file.parent.name, image["tag"]["version"], arguments, platforms


def check_files(image, service, machine):
    """What is in the image: one static binary, and the folder of its state."""
    files = sorted(str(path.relative_to(image.root)) for path in image.root.rglob("*") if not path.is_dir())
    check(files == ["module"], f"the image holds {files}")
    module = image.root / "module"
    text = run("readelf", "--file-header", "--program-headers", "--dynamic", "--sections", "--wide", module,
               env=os.environ | {"LC_ALL": "C"})
    check(machine in re.search(r"Machine: +(.*)", text)[1], f"built for another machine than {machine}")
    check("INTERP" not in text and "(NEEDED)" not in text, "the binary is not static")
    check(".symtab" not in text and ".debug" not in text, "the binary is not stripped")
    size = module.stat().st_size
    print(f"    {size / 1e6:.2f} MB")
    check(size <= LARGEST, f"larger than {LARGEST / 1e6} MB")
    check(image.config["USER"] == "10001:10001", f"runs as {image.config['USER']}")
    check(image.config["VOLUME"] == [f"/var/lib/{service}"], f"volumes {image.config['VOLUME']}")
    check(image.config["HEALTHCHECK"], "no HEALTHCHECK")
    labels = {name.rpartition(".")[2]: text for name, text in image.config["LABEL"].items()}
    wanted = {"title": service, "version": image.version, "revision": BUILD, "licenses": "MIT"}
    check(labels == labels | wanted, f"labels {labels}, expected {wanted}")


def packets(*source, seconds):
    """Digests of the packets of a stream, undecoded, as ffmpeg reads them."""
    command = ["ffmpeg", "-v", "error", "-nostdin", *source, "-t", str(seconds), "-c", "copy", "-f", "framemd5", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    lines = [line.split(",") for line in done.stdout.splitlines() if not line.startswith("#")]
    return [(line[0].strip(), line[5].strip()) for line in lines], done.stderr


def check_played(url, card):
    """A player gets pictures and sound that are in the file, and nothing else."""
    def look():
        got, told = packets("-rw_timeout", "5000000", "-i", url, seconds=2)
        return ({track for track, _ in got} == {"0", "1"} and len(got) > 60 and got), f"{len(got)} packets, {told}"
    got = wait_for(url, look)
    strange = [packet for packet in got if packet not in card]
    check(not strange, f"{url}: {len(strange)} of {len(got)} packets are not those of the file")
    print(f"    {url}: {len(got)} packets as in the file")


def answered(address, path, find):
    """For `wait_for`: what `find` makes of a service's answer; nothing while there is none."""
    def look():
        try:
            with urllib.request.urlopen(f"http://{address}:9600{path}", timeout=10) as answer:
                return find(answer.read().decode())
        except OSError as error:
            return None, error
    return look


def twin_of(service, secrets):
    """What the service is to do: the sample, and for the splitter also TLS, as server and as client, over names."""
    twin = json.loads((TWINS / f"{service}.json").read_text())
    if service == CENTRE:
        tls = {"certificateFile": f"{secrets}/tls.crt", "keyFile": f"{secrets}/tls.key"}
        twin["flows"] |= {
            "over-tls": {"input": {"pull": "rtmp://rtmp-splitter/live/testcard"},
                         "outputs": {"all": {"serve": "rtmps://0.0.0.0:1936/tls/testcard", "tls": tls}}},
            "from-tls": {"input": {"pull": "rtmps://rtmp-splitter:1936/tls/testcard",
                                   "tls": {"caFile": f"{secrets}/tls.crt"}},
                         "outputs": {"all": {"serve": "rtmp://0.0.0.0/back/testcard"}}},
        }
    return twin


def run_together(images, addresses, place, emulators):
    """Starts a service of each name, sends a file through them, and ends them."""
    configuration = place / "configuration"
    configuration.mkdir(parents=True)
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=test", "-addext", f"subjectAltName=DNS:{CENTRE}",
        "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", configuration / "tls.key",
        "-out", configuration / "tls.crt")
    (configuration / "tls.key").chmod(0o644)
    for name in images:
        (configuration / f"{name}.json").write_text(json.dumps(twin_of(name, "/etc/av-services")))
    containers = {}
    publisher = None
    card = set(packets("-i", CARD, seconds=3600)[0])
    try:
        for name, image in images.items():
            arguments = ["--twin", f"/etc/av-services/{name}.json", "--metrics-address", "0.0.0.0:9600"]
            # Each has an address of its own, as in a container's network.
            environment = {"AV_BIND": addresses[name]}
            mounts = [(configuration, "/etc/av-services"), (CARD.parent, "/media")]
            containers[name] = Container(image, place / name, arguments, mounts, environment,
                                         emulators[image.architecture])
        for name, container in containers.items():
            check_started(name, container)
        splitter = f"rtmp://{addresses[CENTRE]}"
        publisher = subprocess.Popen(["ffmpeg", "-v", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i", CARD,
                                      "-c", "copy", "-f", "flv", f"{splitter}/live/published"])
        for path in ("live/testcard", "live/published", "back/testcard"):
            check_played(f"{splitter}/{path}", card)
        for name, container in containers.items():
            check_running(name, images[name].version, container, addresses[name])
        check_page(f"http://{addresses[PAGES]}:8080")
        publisher.terminate()
        publisher.wait()
        for name, container in containers.items():
            code = container.stop(8)
            check(code == 0, f"{name}: after SIGTERM {'no end within 8 s' if code is None else f'exit code {code}'}")
    except TROUBLE as failure:
        logs = [f"--- {name}\n{container.log.read_text(errors='replace')[-3000:]}"
                for name, container in containers.items()]
        raise Failed("\n".join([*logs, str(failure)])) from None
    finally:
        for child in [publisher, *(container.process for container in containers.values())]:
            if child and child.poll() is None:
                child.kill()


def check_page(url):
    """The player page brings hls.js of the version that is locked, and its licence."""
    def got(path):
        with urllib.request.urlopen(f"{url}{path}", timeout=10) as answer:
            return answer.read().decode()
    page, script = got("/player.html"), "/player/hls.min.js"
    check(f'<script src="{script}"' in page, f"{url}/player.html does not load {script}")
    locked = json.loads(PAGES_LOCK.read_text())["packages"]["node_modules/hls.js"]["version"]
    text = got(script)
    check(len(text) > 100_000 and f'"{locked}"' in text, f"{script} is not hls.js {locked}: {text[:100]}")
    check("Apache License" in got("/player/hls.js-LICENSE.txt"), "the licence of hls.js is not in the image")
    print(f"    {url}/player.html: hls.js {locked}")


def check_started(name, container):
    """The image's own health check says so, in the container and as its user."""
    def healthy():
        check(container.process.poll() is None, f"{name}: ended with {container.process.poll()}")
        code, told = container.execute(container.config["HEALTHCHECK"])
        return code == 0, f"exit code {code}, {told}"
    wait_for(f"{name}: HEALTHCHECK", healthy)
    status = container.status()
    held = {key: status[key] for key in ("Uid", "Groups", "NoNewPrivs", "CapEff", "CapBnd")}
    nothing = "0" * 16
    wanted = {"Uid": "\t".join(["10001"] * 4), "Groups": "", "NoNewPrivs": "1", "CapEff": nothing, "CapBnd": nothing}
    check({key: text.strip() for key, text in held.items()} == wanted, f"{name}: runs with {held}")


def check_running(name, version, container, address):
    """It takes frames in, every flow is well, it knows its build, and its volume holds its state."""
    def all_run(text):
        status = json.loads(text)
        states = {flow: one["state"] for flow, one in status["flows"].items()}
        return status if set(states.values()) == {"running"} else None, states

    def taken_in(text):
        return re.findall(r"^av_input_frames_total{.*} ([1-9]\d*)", text, re.M), "none"

    status = wait_for(f"{name}: all flows run", answered(address, "/status", all_run))
    module = {key: status["module"][key] for key in ("name", "version", "build")}
    check(module == {"name": name, "version": version, "build": BUILD}, f"{name}: is {module}")
    taken = wait_for(f"{name}: frames come in", answered(address, "/metrics", taken_in))
    kept = [path for volume in container.volumes for path in volume.rglob("*") if path.is_file()]
    check(kept and all(path.stat().st_uid == 10001 for path in kept), f"{name}: nothing is kept in its volume")
    print(f"    {name}: healthy, {sum(map(int, taken))} frames in, state in {[path.name for path in kept]}")


def chosen(options):
    """By architecture, the native one first: name, version and build arguments of each service to be built for it."""
    known = list(services())
    all_of_them = options.long or options.architecture
    order = sorted(ARCHITECTURES, key=lambda name: ARCHITECTURES[name][0] != NATIVE)
    for platform_name in order:
        architecture = ARCHITECTURES[platform_name][0]
        if options.architecture not in (None, architecture):
            continue
        found = {}
        for name, version, arguments, platforms in known:
            if platforms[platform_name] != DOCKERFILE:
                if reason := why_not_its_own(architecture, options):
                    skip(f"image of {name} for {architecture}", reason)
            elif architecture != NATIVE and not all_of_them:
                skip(f"image of {name} for {architecture}", "long")
            else:
                found[name] = version, arguments
        yield architecture, found


def why_not_its_own(architecture, options):
    """Why the image of a service with a Dockerfile of its own is not tried, if so."""
    if architecture != NATIVE:
        return "it is built by emulation, or on a machine of that kind"
    return None if options.long and options.architecture in (None, NATIVE) else "long"


def with_its_own(options):
    """Name, version, build arguments and Dockerfile of the services that have one of their own, where they are tried."""
    platform_name = next(name for name, (architecture, *_) in ARCHITECTURES.items() if architecture == NATIVE)
    for name, version, arguments, platforms in services():
        if platforms[platform_name] != DOCKERFILE and not why_not_its_own(NATIVE, options):
            yield name, version, arguments, platforms[platform_name]


def build(options, work):
    """The images by architecture and service."""
    builder = Builder(ROOT, options.dockerfile or DOCKERFILE, TARGET / "image", work, NATIVE)
    images = {}
    for architecture, found in chosen(options):
        machine = next(elf for name, elf, _ in ARCHITECTURES.values() if name == architecture)
        for name, (version, arguments) in found.items():
            since = time.monotonic()
            stage = builder.build(architecture, arguments | {"AV_BUILD": BUILD})
            place = work / "images" / architecture / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with builder.root_of(stage.layers, work / f"top-{architecture}-{name}") as root:
                run("cp", "-a", root, place)
            image = images.setdefault(architecture, {})[name] = Image(architecture, version, place, stage.config)
            print(f"{name} {architecture}: built in {time.monotonic() - since:.0f} s", flush=True)
            check_files(image, name, machine)
    return images


def at_usual_priority():
    """Building may be at a low one, beside other tests; what is waited for is not."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, 0, 0)


def inside(options):
    """All of it, in namespaces of its own."""
    work = TARGET / "image/work"
    work.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", work)
    images = {} if options.only_its_own else build(options, work)
    its_own = [renderer.check_renderer(sys.modules[__name__], dockerfile, version, arguments, work)
               for name, version, arguments, dockerfile in with_its_own(options)]
    at_usual_priority()
    addresses = {name: f"127.0.0.{number}" for number, name in enumerate(next(iter(images.values()), {}), 20)}
    network.own()
    network.name_server(addresses)
    emulators = {NATIVE: None} | {name: shutil.which(emulator) for name, _, emulator in ARCHITECTURES.values()
                                  if name != NATIVE}
    for architecture, built in images.items():
        program = emulators[architecture]
        if architecture != NATIVE and not program:
            skip(f"running the images for {architecture}", "no emulator of it")
            continue
        since = time.monotonic()
        print(f"{architecture}: run{' by ' + program if program else ''}", flush=True)
        together = images.get(NATIVE, {}) | built
        run_together(together, addresses, work / "run" / architecture, emulators)
        print(f"{architecture}: ran for {time.monotonic() - since:.0f} s", flush=True)
    for image in its_own:
        renderer.run_renderer(sys.modules[__name__], image, work)


def hindrance():
    """Why nothing can be done here, if so."""
    if os.geteuid() != 0:
        return "only root can mount"
    if not NATIVE:
        return f"the official image of Rust has no stand-in on {platform.machine()}"
    programs = ["unshare", "nsenter", "mmdebstrap", "rustup", "readelf", "openssl", "ffmpeg"]
    if missing := [name for name in programs if not shutil.which(name)]:
        return f"no {', '.join(missing)}"
    mounts = ("mount -t tmpfs t /mnt && cd /mnt && mkdir u w m && "
              "mount -t overlay -o lowerdir=/usr,upperdir=u,workdir=w o m")
    tried = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "sh", "-c", mounts],
                           capture_output=True, text=True, check=False)
    return f"no mounts in a namespace: {tried.stderr.partition(chr(10))[0]}" if tried.returncode else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dockerfile", type=pathlib.Path)
    parser.add_argument("--architecture", choices=["amd64", "arm64"])
    parser.add_argument("--long", action="store_true", default="AV_LONG" in os.environ)
    parser.add_argument("--only-its-own", action="store_true",
                        help="only the services with a Dockerfile of their own; with --long")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        if reason := hindrance():
            return skip("images", reason)
        os.execvp("unshare", ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable,
                              __file__, *sys.argv[1:], "--inside"])
    try:
        inside(options)
    except TROUBLE as error:
        sys.exit(f"{error}")


main()
