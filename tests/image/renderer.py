"""The image of the renderer, which has a Dockerfile of its own: built as the others are, and given a stream to decode."""

import json
import pathlib
import subprocess
import time

from build import Builder, run
from container import Container

NAME = "renderer"
# What the Dockerfile's packages must bring: a file of each kind of decoder, display and sound that the code names.
PLUGINS = ["app", "libav", "va", "video4linux2", "kms", "waylandsink", "pulseaudio", "alsa", "jpeg", "videoparsersbad"]
ADDRESS = "127.0.0.19"


def check_renderer(tools, dockerfile, version, arguments, work):
    """Builds it for this machine's architecture and runs it. `tools`: the functions of check.py."""
    since = time.monotonic()
    (work / NAME).mkdir()
    builder = Builder(tools.ROOT, dockerfile, tools.TARGET / "image", work / NAME, tools.NATIVE)
    stage = builder.build(tools.NATIVE, arguments | {"AV_BUILD": tools.BUILD})
    place = work / "images" / NAME
    place.parent.mkdir(parents=True, exist_ok=True)
    with builder.root_of(stage.layers, work / f"top-{NAME}") as root:
        run("cp", "-a", root, place)
    image = tools.Image(tools.NATIVE, version, place, stage.config)
    image.environment = stage.environment
    print(f"{NAME} {tools.NATIVE}: built in {time.monotonic() - since:.0f} s", flush=True)
    found = {file.name for file in place.glob("usr/lib/*/gstreamer-1.0/*.so")}
    missing = [name for name in PLUGINS if f"libgst{name}.so" not in found]
    tools.check(not missing, f"{NAME}: the image lacks GStreamer's plugins {missing}; it has {sorted(found)}")
    tools.check(image.config["USER"] == "10001:10001", f"runs as {image.config['USER']}")
    tools.check(image.config["VOLUME"] == [f"/var/lib/{NAME}"], f"volumes {image.config['VOLUME']}")
    return image


def run_renderer(tools, image, work):
    """Publishes the test card to it; it must be decoded, and a desktop that is not there must be named."""
    configuration = work / "run" / NAME / "configuration"
    configuration.mkdir(parents=True)
    url = f"rtmp://{ADDRESS}/live/card"
    outputs = {"count": {"render": "display://none"}, "screen": {"render": "display://default"}}
    twin = {"schemaVersion": "1.0", "flows": {"card": {"input": {"listen": url}, "outputs": outputs}}}
    (configuration / "twin.json").write_text(json.dumps(twin))
    words = ["--twin", "/etc/av-services/twin.json", "--metrics-address", "0.0.0.0:9600"]
    environment = {"AV_BIND": ADDRESS} | image.environment
    container = Container(image, work / "run" / NAME / "container", words, [(configuration, "/etc/av-services")],
                          environment, None)
    publisher = None
    try:
        tools.check_started(NAME, container)
        publisher = subprocess.Popen(["ffmpeg", "-v", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i",
                                      tools.CARD, "-c", "copy", "-f", "flv", url])

        def renders(text):
            outputs = json.loads(text)["flows"]["card"]["outputs"]
            count, screen = outputs["count"], outputs["screen"]
            shown = count.get("rendered", 0) > 30 and "no display can be used" in screen.get("error", "")
            return (outputs if shown else None), outputs

        outputs = tools.wait_for(f"{NAME}: it decodes", tools.answered(ADDRESS, "/status", renders))
        decoder = outputs["count"]["decoder"]["element"]
        tools.check(decoder == "avdec_h264", f"{NAME}: decoded by {decoder}")
        print(f"    {NAME}: healthy, {outputs['count']['rendered']} pictures by {decoder}")
        code = container.stop(8)
        tools.check(code == 0, f"{NAME}: after SIGTERM exit code {code}")
    except tools.TROUBLE as failure:
        log = pathlib.Path(container.log).read_text(errors="replace")[-3000:]
        raise tools.Failed(f"--- {NAME}\n{log}\n{failure}") from None
    finally:
        for child in (publisher, container.process):
            if child and child.poll() is None:
                child.kill()
