"""The process: its start, its end, its options, its log."""

import json
import signal

from bench import Failed
from module import Module, send_signal

from . import scenario


@scenario()
async def it_ends_in_time_without_a_hub_and_without_a_workload_api(bench):
    await bench.start(hub=False, workload=False)
    await bench.until("healthy", lambda: bench.answers("/healthz"))
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
    await bench.until("ready", lambda: bench.answers("/readyz"))
    publisher = await bench.publish("v1")
    await bench.until("streams", lambda: bench.input_is("cam", "receiving"))
    await bench.hub.start(bench.hub_port)
    await bench.settled("partial", 60)
    if publisher.returncode is not None or not await bench.input_is("cam", "receiving"):
        raise Failed("the stream was lost when the hub came")
    if bench.reported["flows"]["cam"].get("usingVersion") is None:
        raise Failed("usingVersion is missing")


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
    if (
        code != 64
        or len(lines) != 1
        or not all(way in lines[0] for way in ["--twin", "IOTEDGE_", "EdgeHubConnectionString"])
    ):
        raise Failed(f"without any configuration: {code} {lines}")
    for variables in [{"EdgeHubConnectionString": "HostName=h"}, {"EdgeHubConnectionString": "nonsense"}]:
        code, lines = await _exit(bench, **variables)
        if code != 64 or not any("EdgeHubConnectionString" in line for line in lines):
            raise Failed(f"{variables}: {code} {lines}")
    if bench.record.violations:
        raise Failed("a fault of the environment is no log line")
    for arguments in [["--nonsense"], ["--twin"], ["--twin", str(good), "--log-format", "xml"], ["nonsense"]]:
        code, lines = await _exit(bench, *arguments)
        if code != 64:
            raise Failed(f"{arguments}: {code} {lines}")
    for variables in [
        {"AV_LOG_FORMAT": "xml"},
        {"AV_HUB_PORT": "x"},
        {"AV_BIND": "x"},
        {"AV_HOSTS": "x"},
        {"AV_METRICS_ADDRESS": "x"},
        {"AV_PATHS": "x"},
        {"IOTEDGE_WORKLOADURI": "ftp://x"},
    ]:
        code, lines = await _exit(bench, **bench.environment() | variables)
        if code != 64:
            raise Failed(f"{variables}: {code} {lines}")
    # Usage is told as programs do it.
    bench.record.forget("log line")
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
    bench.modules.append(
        module := Module(
            bench.record,
            bench.binaries / bench.name,
            bench.environment() | {"AV_LOG_FORMAT": "edge"},
            ["--twin", str(twin)],
        )
    )
    bench.module = module
    await module.start()
    await bench.until("ready", lambda: bench.answers("/readyz"))
    if await module.healthcheck() != 0 or await module.healthcheck("--ready") != 0:
        raise Failed("healthcheck")
    status = await module.status()
    if set(status["flows"]) != {"cam"} or status["config"]["status"] != "applied":
        raise Failed(json.dumps(status))
    twin.write_text(json.dumps({"flows": {"two": bench.flow("v2")}}))
    await bench.until("applied again", lambda: _flows(bench, {"two"}))
    twin.write_text("{")
    await bench.until("told", lambda: _config(bench, "rejected"))
    twin.write_text(json.dumps({}))
    await bench.until("applied again", lambda: _flows(bench, set()))
    send_signal(module.process, signal.SIGINT)
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
    await bench.until("healthy", lambda: bench.answers("/healthz"))
    if await bench.module.healthcheck("--ready") == 0 or await bench.module.healthcheck() != 0:
        raise Failed("healthcheck before a configuration")
    await bench.hub.start(bench.hub_port)
    await bench.until("told", lambda: bench.reported.get("config", {}).get("errors"), 60)
    await bench.until("ready", lambda: bench.answers("/readyz"))
    if await bench.module.healthcheck("--ready") != 0:
        raise Failed("healthcheck --ready")


@scenario()
async def json_log_lines_are_json(bench):
    twin = bench.folder / "twin.json"
    twin.write_text("{}")
    log = Module(
        bench.record,
        bench.binaries / bench.name,
        {"AV_LOG_FORMAT": "json", "AV_STATE_DIR": str(bench.folder)},
        ["--twin", str(twin)],
    )
    bench.module = log
    bench.modules.append(log)
    await log.start()
    await bench.until("ready", lambda: bench.answers("/readyz"))
    await log.stop()
    bench.record.violations.clear()
    for line in log.lines:
        json.loads(line)
    bench.module = None


@scenario()
async def options_of_the_command_line_win_over_the_environment(bench):
    twin = bench.folder / "twin.json"
    twin.write_text(
        json.dumps(
            {
                "flows": {
                    "cam": {
                        "input": {"listen": f"rtmp://0.0.0.0:{bench.ports[0]}/live/a"},
                        "outputs": {
                            "viewers": {"serve": f"rtmp://0.0.0.0:{bench.ports[0]}/live/a"},
                            "far": {"push": f"rtmp://far.example:{bench.ports[1]}/x/y"},
                        },
                    }
                }
            }
        )
    )
    arguments = [
        "--twin",
        str(twin),
        "--state-dir",
        str(bench.folder / "s"),
        "--bind",
        "127.0.0.1",
        "--hosts",
        "far.example=127.0.0.3",
        "--device",
        "named",
        "--log-format",
        "edge",
        "--hub-port",
        "1",
    ]
    module = Module(
        bench.record,
        bench.binaries / bench.name,
        {"AV_DEVICE": "other", "AV_LOG_FORMAT": "json", "AV_STATE_DIR": "/nonexistent/x"},
        arguments,
    )
    bench.module = module
    bench.modules.append(module)
    await module.start()
    await bench.until("ready", lambda: bench.answers("/readyz"))
    if not any(labels.get("edge_device") == "named" for _, labels, _ in await module.series()):
        raise Failed("--device is not in the labels")
    if not (bench.folder / "s").exists():
        raise Failed("--state-dir is not used")
    await bench.publish("a")
    await bench.until("refused by the address given", lambda: _retrying(bench))
    await module.stop()
    bench.module = None


async def _retrying(bench):
    flow = (await bench.module.status())["flows"]["cam"]
    return "127.0.0.3" in json.dumps(flow) or flow["outputs"]["far"]["state"] == "retrying"


@scenario()
async def a_state_directory_that_cannot_be_written_ends_nothing(bench):
    bench.desire({"cam": bench.flow("a")})
    await bench.start(AV_STATE_DIR="/dev/null/state")
    await bench.settled()
    bench.hub.change({"flows": {"two": bench.flow("b")}})
    await bench.settled()


@scenario()
async def the_first_way_to_a_configuration_wins_and_the_log_says_which(bench):
    await bench.start(
        EdgeHubConnectionString="HostName=h;DeviceId=d;ModuleId=m;SharedAccessKey=aw==;GatewayHostName=g",
        EdgeModuleCACertificateFile="/nonexistent",
    )
    await bench.settled()
    if not any("IOTEDGE_WORKLOADURI" in line for line in bench.module.lines[:2]):
        raise Failed(f"{bench.module.lines[:2]}")
