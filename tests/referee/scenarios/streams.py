"""Modules with streams: metrics, certificates, keys, patterns, a file."""

import asyncio
import json
import os
import shutil
import ssl
import subprocess

from bench import ROOT, TESTCARD, Failed, Skipped

from . import scenario

_COMMON = {"iothub", "edge_device", "module_name", "instance_number"}
#: The names of docs/operate.md with the labels that each may have beside the common ones.
_METRICS = {
    "av_flow_state": {"flow"},
    "av_input_bytes_total": {"flow", "kind"},
    "av_input_frames_total": {"flow", "kind"},
    "av_input_reconnects_total": {"flow"},
    "av_frames_skipped_total": {"flow", "reason"},
    "av_stream_given_up_total": {"flow"},
    "av_output_bytes_total": {"flow", "output"},
    "av_output_frames_dropped_total": {"flow", "output", "kind"},
    "av_output_clients": {"flow", "output"},
    "av_output_latency_seconds": {"protocol", "kind"},
    "av_hub_connected": set(),
    "av_config_desired_version": set(),
}


@scenario()
async def metrics_are_named_and_labelled_as_promised(bench):
    bench.desire({"cam": bench.flow("a"), "off": bench.flow("b") | {"enabled": False}})
    await bench.start()
    await bench.settled()
    await bench.publish("a")
    await bench.play("a")
    await bench.until(
        "latency is measured", lambda: bench.module.value("av_output_latency_seconds_count", kind="video")
    )
    series = await bench.module.series()
    bench_labels = {"iothub": bench.identity.hub, "edge_device": bench.identity.device, "module_name": bench.name}
    # Other names may be there when they are listed, with the labels that are listed.
    listed = (ROOT / "edge-config/monitoring/metrics.txt").read_text().splitlines()
    rows = [line.split() for line in listed if line and not line.startswith("#")]
    promised = {row[0]: set(row[2].split(",")) - {"-"} for row in rows} | _METRICS
    names, numbers = set(), set()
    for name, labels, _ in series:
        family = name
        for suffix in ("_bucket", "_sum", "_count"):
            if name.removesuffix(suffix) in _METRICS:
                family = name.removesuffix(suffix)
        names.add(family)
        own = set(labels) - _COMMON - ({"le"} if name.endswith("_bucket") else set())
        if family not in promised and not family.startswith("process_"):
            bench.record.add("metric", f"{name} is not promised")
        elif not own <= promised.get(family, set()) or (
            family == "av_output_latency_seconds" and own != _METRICS[family]
        ):
            bench.record.add("metric labels", f"{name} {own}")
        if not bench_labels.items() <= labels.items() or not labels.get("instance_number"):
            bench.record.add("common labels", f"{name} {labels}")
        numbers.add(labels.get("instance_number"))
    missing = set(_METRICS) - names
    if missing or len(numbers) != 1:
        raise Failed(f"missing {missing}, instance numbers {numbers}")
    if (
        await bench.module.value("av_flow_state", flow="off") != 0
        or await bench.module.value("av_flow_state", flow="cam") != 2
    ):
        raise Failed("av_flow_state is not as docs/operate.md counts")
    if await bench.module.value("av_config_desired_version") != bench.hub.twin.version:
        raise Failed("av_config_desired_version is not the twin's")
    await bench.stop()
    await bench.run()
    await bench.settled()
    if await bench.module.value("av_hub_connected", instance_number=numbers.pop()) is not None:
        raise Failed("instance_number is the same after a restart")


@scenario()
async def prometheus_has_nothing_to_say_against_the_metrics(bench):
    promtool = shutil.which("promtool", path=f"{ROOT / 'tests/.tools'}:{os.environ['PATH']}")
    if not promtool:
        raise Skipped("no promtool")
    bench.desire({"cam": bench.flow("a")})
    await bench.start()
    await bench.settled()
    await bench.publish("a")
    await bench.play("a")
    await bench.until(
        "latency is measured", lambda: bench.module.value("av_output_latency_seconds_count", kind="video")
    )
    _, text = await bench.module.get("/metrics")
    found = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False
    )
    if found.returncode or found.stderr:
        raise Failed(f"{found.stdout}{found.stderr}")


@scenario()
async def a_listener_presents_a_certificate_of_the_workload_api(bench):
    url = f"rtmps://127.0.0.1:{bench.ports[0]}/live/a"
    bench.desire({"cam": {"input": {"listen": url}, "outputs": {"viewers": {"serve": url}}}})
    await bench.start()
    await bench.settled()
    context = ssl.create_default_context(cadata=bench.workload.authority.root)

    async def presented():
        try:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", bench.ports[0], ssl=context, server_hostname=bench.identity.gateway
            )
        except OSError:
            return False
        writer.close()
        return True

    await bench.until("a certificate for the gateway's name", presented)


@scenario(module="mp4-source")
async def a_file_is_served_and_pushed_while_the_hub_comes_and_goes(bench):
    serve = f"rtmp://127.0.0.1:{bench.ports[0]}/live/card"
    bench.desire(
        {"card": {"input": {"read": f"file://{TESTCARD}"}, "outputs": {"viewers": {"serve": serve}}}},
        telemetryIntervalSeconds=2,
    )
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


@scenario()
async def keys_and_passwords_are_shown_nowhere(bench):
    keys = ["k1-Passw0rd", "k2-Passw0rd", "u3-Passw0rd", "e4-Passw0rd", "f5-Passw0rd"]
    bench.record.secrets += keys
    secret = bench.folder / "key"
    secret.write_text(keys[4] + "\n")
    flow = bench.flow("a")
    flow["input"]["auth"] = {"key": [keys[0], {"env": "REFEREE_KEY"}]}
    flow["outputs"]["viewers"]["auth"] = {"username": "viewer", "password": keys[2]}
    flow["outputs"]["cloud"] = {
        "push": f"rtmp://127.0.0.1:{bench.ports[2]}/app",
        "credentials": {"streamKey": {"file": str(secret)}},
    }
    away = {
        "input": {"pull": f"rtmp://user:{keys[1]}@127.0.0.1:{bench.ports[3]}/a/b?token={keys[1]}"},
        "outputs": {"viewers": {"serve": f"rtmp://127.0.0.1:{bench.ports[0]}/live/b"}},
    }
    wrong = {"input": {"listen": f"rtmp://user:{keys[2]}@0.0.0.0/x"}, "outputs": {}}
    more = {"input": {"pull": f"rtmp://u:{keys[2]}@host#x/{keys[2]}"}, "outputs": {}}
    odd = {"input": {"pull": f"ftp://u:{keys[2]}@host/x?y={keys[2]}"}, "outputs": {}}
    bench.desire({"cam": flow, "away": away, "wrong": wrong, "more": more, "odd": odd}, telemetryIntervalSeconds=1)
    await bench.start(REFEREE_KEY=keys[3], RuntimeLogLevel="trace")
    await bench.settled("partial")
    await bench.publish(f"a?key={keys[4]}")
    await bench.publish("a\n<0> no line of the module's\r\x1b[31m")
    await bench.publish(f"a?key={keys[3]}")
    await bench.until("receiving", lambda: bench.input_is("cam", "receiving"))
    await asyncio.sleep(3)
    await bench.hub.call("getStatus")
    await bench.hub.call("getStatus", {"flow": "away"})
    await bench.module.series()
    await bench.settled("partial")


@scenario()
async def instances_of_a_pattern_are_counted_and_never_named_in_the_twin(bench):
    url = f"rtmp://127.0.0.1:{bench.ports[0]}/live/*"
    bench.desire({"any": {"input": {"listen": url, "maxInstances": 2}, "outputs": {"viewers": {"serve": url}}}})
    await bench.start()
    await bench.settled()
    await bench.publish("first.name")
    await bench.publish("second")
    await bench.until("two are active", lambda: bench.reported["flows"]["any"].get("instances", {}).get("active") == 2)
    if "first.name" in json.dumps(bench.reported):
        raise Failed("an instance is named in the twin")
    await bench.publish("third")
    await bench.until("one is refused", lambda: bench.reported["flows"]["any"]["instances"]["refused"] >= 1)
    status = await bench.hub.call("getStatus")
    if "second" not in json.dumps(status[1]):
        raise Failed(json.dumps(status[1]))
    await bench.settled()
