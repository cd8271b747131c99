"""The process: its start, its end, its options, its metrics, its log."""

import asyncio
import json
import pathlib
import shutil
import signal
import ssl
import subprocess

from bench import TESTCARD, Failed
from module import Module

from . import scenario

_COMMON = {"iothub", "edge_device", "module_name", "instance_number"}
#: The contract's names with the labels that each may have beside the common ones.
_METRICS = {
    "av_flow_state": {"flow"}, "av_input_bytes_total": {"flow", "kind"}, "av_input_frames_total": {"flow", "kind"},
    "av_input_reconnects_total": {"flow"}, "av_output_bytes_total": {"flow", "output"},
    "av_output_frames_dropped_total": {"flow", "output", "kind"}, "av_output_clients": {"flow", "output"},
    "av_output_latency_seconds": {"protocol", "kind"}, "av_hub_connected": set(), "av_config_desired_version": set(),
}


@scenario()
async def it_ends_in_time_without_a_hub_and_without_a_workload_api(bench):
    await bench.start(hub=False, workload=False)
    await bench.until("healthy", lambda: _healthy(bench))
    await bench.module.stop()
    await bench.workload.start(bench.address)
    bench.workload.hang = True
    await bench.run()
    await bench.until("asked", lambda: bench.workload.requests)
    await bench.module.stop()
    bench.workload.hang = False
    bench.hub.connack_delay = 60
    await bench.hub.start(bench.hub_port)
    await bench.run()
    await bench.until("connecting", lambda: bench.hub.sessions and bench.hub.sessions[-1].connect)
    await bench.module.stop()
    bench.hub.connack_delay, bench.hub.hang = 0, False
    await bench.run()
    await bench.settled()
    bench.hub.hang = True
    await bench.module.stop()


async def _healthy(bench):
    return (await bench.module.get("/healthz"))[0] == 200


@scenario()
async def it_starts_without_a_hub_from_what_was_good(bench):
    good = bench.flow("v1")
    bench.desire({"cam": good, "bad": {"input": {"listen": 3}}, "two": bench.flow("two")})
    await bench.start()
    await bench.settled("partial")
    bench.hub.change({"flows": {"cam": {"input": {"listen": 5}}}})
    await bench.settled("partial")
    await bench.stop()
    await bench.hub.stop()
    await bench.run()
    await bench.until("ready", lambda: _ready(bench))
    publisher = await bench.publish("v1")
    await bench.until("streams", lambda: _receiving(bench, "cam"))
    await bench.hub.start(bench.hub_port)
    await bench.settled("partial", 60)
    if publisher.returncode is not None or not await _receiving(bench, "cam"):
        raise Failed("the stream was lost when the hub came")
    if bench.reported["flows"]["cam"].get("usingVersion") is None:
        raise Failed("usingVersion is missing")


async def _ready(bench):
    return (await bench.module.get("/readyz"))[0] == 200


async def _receiving(bench, name):
    flow = (await bench.module.status()).get("flows", {}).get(name, {})
    return flow.get("input", {}).get("state") == "receiving"


@scenario()
async def metrics_are_named_and_labelled_as_promised(bench):
    bench.desire({"cam": bench.flow("a"), "off": bench.flow("b") | {"enabled": False}})
    await bench.start()
    await bench.settled()
    await bench.publish("a")
    await bench.play("a")
    await bench.until("latency is measured", lambda: bench.module.value("av_output_latency_seconds_count", kind="video"))
    series = await bench.module.series()
    bench_labels = {"iothub": bench.identity.hub, "edge_device": bench.identity.device, "module_name": bench.name}
    names, numbers = set(), set()
    for name, labels, _ in series:
        family = name
        for suffix in ("_bucket", "_sum", "_count"):
            if name.removesuffix(suffix) in _METRICS:
                family = name.removesuffix(suffix)
        names.add(family)
        own = set(labels) - _COMMON - ({"le"} if name.endswith("_bucket") else set())
        if family not in _METRICS and not family.startswith("process_"):
            bench.record.add("metric", f"{name} is not in the contract")
        elif not own <= _METRICS.get(family, set()) or (family == "av_output_latency_seconds" and own != _METRICS[family]):
            bench.record.add("metric labels", f"{name} {own}")
        if not bench_labels.items() <= labels.items() or not labels.get("instance_number"):
            bench.record.add("common labels", f"{name} {labels}")
        numbers.add(labels.get("instance_number"))
    missing = set(_METRICS) - names
    if missing or len(numbers) != 1:
        raise Failed(f"missing {missing}, instance numbers {numbers}")
    if await bench.module.value("av_flow_state", flow="off") != 0 or await bench.module.value("av_flow_state", flow="cam") != 2:
        raise Failed("av_flow_state is not as the contract counts")
    if await bench.module.value("av_config_desired_version") != bench.hub.twin.version:
        raise Failed("av_config_desired_version is not the twin's")
    promtool = shutil.which("promtool")
    if promtool:
        _, text = await bench.module.get("/metrics")
        found = await asyncio.to_thread(
            subprocess.run, [promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
        if found.returncode or found.stderr:
            raise Failed(f"promtool: {found.stdout}{found.stderr}")
    await bench.stop()
    await bench.run()
    await bench.settled()
    if await bench.module.value("av_hub_connected", instance_number=numbers.pop()) is not None:
        raise Failed("instance_number is the same after a restart")


async def _exit(bench, *arguments, **environment):
    """A run without edge variables, to its end: (code, lines)."""
    module = Module(bench.record, bench.binaries / bench.name, environment, arguments)
    bench.modules.append(module)
    await module.start()
    return await module.ended(20), module.lines


@scenario()
async def exit_codes_say_what_was_wrong(bench):
    good, state = bench.folder / "twin.json", str(bench.folder / "state")
    code, lines = await _exit(bench)
    if code != 64 or len(lines) != 1 or not all(way in lines[0] for way in ["--twin", "IOTEDGE_", "EdgeHubConnectionString"]):
        raise Failed(f"without any configuration: {code} {lines}")
    for arguments in [["--nonsense"], ["--twin"], ["--twin", str(good), "--log-format", "xml"], ["nonsense"]]:
        bench.record.violations.clear()
        code, lines = await _exit(bench, *arguments)
        if code != 64:
            raise Failed(f"{arguments}: {code} {lines}")
    bench.record.violations.clear()
    bad = ["", "nonsense", "[]", '{"schemaVersion":"2.0"}', '{"flows":{"a":{"input":5}}}', None]
    for text in bad:
        good.unlink(missing_ok=True)
        if text is not None:
            good.write_text(text)
        code, lines = await _exit(bench, "--twin", str(good), "--state-dir", state)
        if code != 78 or not lines:
            raise Failed(f"{text!r}: {code} {lines}")


@scenario()
async def a_file_does_without_a_hub(bench):
    twin = bench.folder / "twin.json"
    twin.write_text(json.dumps({"flows": {"cam": bench.flow("v1")}}))
    bench.modules.append(module := Module(bench.record, bench.binaries / bench.name,
                         bench.environment() | {"AV_LOG_FORMAT": "edge"}, ["--twin", str(twin)]))
    bench.module = module
    await module.start()
    await bench.until("ready", lambda: _ready(bench))
    if await module.healthcheck() != 0 or await module.healthcheck("--ready") != 0:
        raise Failed("healthcheck")
    status = await module.status()
    if set(status["flows"]) != {"cam"} or status["config"]["status"] != "applied":
        raise Failed(f"{status}")
    twin.write_text(json.dumps({"flows": {"two": bench.flow("v2")}}))
    await bench.until("applied again", lambda: _flows(bench, {"two"}))
    twin.write_text("{")
    await bench.until("told", lambda: _config(bench, "rejected"))
    twin.write_text(json.dumps({}))
    await bench.until("applied again", lambda: _flows(bench, set()))
    module.process.send_signal(signal.SIGINT)
    if await module.ended(8) != 0:
        raise Failed("SIGINT")
    if await module.healthcheck() == 0:
        raise Failed("healthcheck of a module that does not run")
    if bench.hub.attempts or bench.workload.requests:
        raise Failed("the hub was asked although --twin was given")
    bench.module = None


async def _flows(bench, names):
    return set((await bench.module.status()).get("flows", {})) == names


async def _config(bench, status):
    return (await bench.module.status()).get("config", {}).get("status") == status


@scenario()
async def ready_is_said_once_a_configuration_was_handled(bench):
    bench.desire({"bad": {"input": 5}})
    await bench.start(hub=False)
    await bench.until("healthy", lambda: _healthy(bench))
    if await bench.module.healthcheck("--ready") == 0 or await bench.module.healthcheck() != 0:
        raise Failed("healthcheck before a configuration")
    await bench.hub.start(bench.hub_port)
    await bench.until("told", lambda: bench.reported.get("config", {}).get("errors"), 60)
    await bench.until("ready", lambda: _ready(bench))
    if await bench.module.healthcheck("--ready") != 0:
        raise Failed("healthcheck --ready")


@scenario()
async def json_log_lines_are_json(bench):
    twin = bench.folder / "twin.json"
    twin.write_text("{}")
    log = Module(bench.record, bench.binaries / bench.name, {"AV_LOG_FORMAT": "json", "AV_STATE_DIR": str(bench.folder)},
                 ["--twin", str(twin)])
    bench.module = log
    bench.modules.append(log)
    await log.start()
    await bench.until("ready", lambda: _ready(bench))
    await log.stop()
    bench.record.violations.clear()
    for line in log.lines:
        json.loads(line)
    bench.module = None


@scenario()
async def a_listener_presents_a_certificate_of_the_workload_api(bench):
    url = f"rtmps://127.0.0.1:{bench.ports[0]}/live/a"
    bench.desire({"cam": {"input": {"listen": url}, "outputs": {"viewers": {"serve": url}}}})
    await bench.start()
    await bench.settled()
    context = ssl.create_default_context(cadata=bench.workload.authority.root)

    async def presented():
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", bench.ports[0], ssl=context,
                                                      server_hostname=bench.identity.gateway)
        except OSError:
            return False
        writer.close()
        return True

    await bench.until("a certificate for the gateway's name", presented)


@scenario(module="mp4-source")
async def a_file_is_served_and_pushed_while_the_hub_comes_and_goes(bench):
    serve = f"rtmp://127.0.0.1:{bench.ports[0]}/live/card"
    bench.desire({"card": {"input": {"read": f"file://{TESTCARD}"}, "outputs": {"viewers": {"serve": serve}}}},
                 telemetryIntervalSeconds=2)
    await bench.start()
    await bench.settled()
    player = await bench.play("card")
    for _ in range(2):
        bench.hub.cut()
        await bench.until("connected again", lambda: bench.hub.ready, 40)
        await bench.settled()
    if player.returncode is not None:
        raise Failed("the player was lost")
    if bench.reported["flows"]["card"]["state"] != "running":
        raise Failed(f"{bench.reported['flows']}")
    bench.hub.change({"flows": {"card": {"input": {"read": "file:///nowhere.mp4"}}}})
    await bench.settled()
    await bench.until("failed", lambda: bench.reported["flows"]["card"]["state"] in ("failed", "retrying"))


@scenario(long=True)
async def a_clock_that_jumps_renews_the_token_in_place(bench):
    library = pathlib.Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
    if not library.exists():
        return "libfaketime is not installed"
    bench.desire({"cam": bench.flow("a")})
    clock = bench.folder / "clock"
    clock.write_text("+0")
    await bench.start(LD_PRELOAD=str(library), FAKETIME_TIMESTAMP_FILE=str(clock), FAKETIME_NO_CACHE="1",
                      FAKETIME_DONT_FAKE_MONOTONIC="1")
    await bench.settled()
    session, tried = bench.hub.session, len(bench.hub.attempts)
    clock.write_text("+3500")
    bench.hub.clock = 3500
    await bench.until("a new token", lambda: len(bench.hub.attempts) > tried and bench.hub.ready, 100)
    if not session.disconnected:
        raise Failed("the renewal did not say DISCONNECT")
    await bench.settled()
    return None
