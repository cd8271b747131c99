"""Reported properties: refused, lost, near the limits, and after a restart."""

import asyncio
import itertools
import signal

from bench import Failed
from module import send_signal
from twin import compact

from . import scenario
from .clock import fast, forget_paces


@scenario(seconds=40)
async def refused_reports_are_made_again_until_the_hub_takes_them(bench):
    bench.desire({"cam": bench.flow("v1")})
    answers = iter([429, 500, 503])
    bench.hub.report_answer = lambda payload: next(answers, None)
    await bench.start()
    await bench.settled(timeout=150)


@scenario()
async def refusals_later_on_lose_nothing(bench):
    bench.desire({"cam": bench.flow("v1")})
    await bench.start()
    await bench.settled()
    answers = iter([400, 429])
    bench.hub.report_answer = lambda payload: next(answers, None)
    bench.hub.change({"flows": {"two": bench.flow("two"), "cam": None}})
    await bench.settled(timeout=120)


async def _loses(bench, answer):
    bench.desire({"cam": bench.flow("v1")})
    answers = iter([answer])
    bench.hub.report_answer = lambda payload: next(answers, None)
    # Two minutes of the module's time.
    await bench.start(**fast(20))
    await bench.settled(timeout=60)
    bench.hub.change({"flows": {"two": bench.flow("two")}})
    await bench.settled(timeout=60)
    bench.record.forget("two reports in flight")
    # It has waited two minutes by its own clock.
    bench.record.forget("telemetry before the twin")
    forget_paces(bench)


@scenario()
async def a_report_that_is_lost_is_waited_for_and_made_good(bench):
    await _loses(bench, "lost")


@scenario()
async def a_report_of_which_the_answer_is_lost_is_waited_for_and_made_good(bench):
    await _loses(bench, "lost after storing")


@scenario()
async def a_hundred_and_fifty_flows_fit_into_the_twin(bench):
    flows = {
        f"{'n' * 58}-{number:03}": bench.flow(f"{'p' * 90}{number}") | {"description": "d" * 300}
        for number in range(150)
    }
    bench.desire(flows)
    await bench.start()
    await bench.until("applied", lambda: bench.says(), 60)
    await bench.until("truncated", lambda: bench.reported["config"].get("truncated") is True)
    if bench.reported["summary"]["flows"] != 150:
        raise Failed(f"{bench.reported['summary']}")
    if len(bench.reported["flows"]) != 150 or '"url"' in compact(bench.reported):
        raise Failed(f"{len(bench.reported['flows'])} flows are reported in {len(compact(bench.reported))} bytes")
    few = dict(itertools.islice(flows.items(), 3))
    bench.hub.change({"flows": {name: None for name in flows if name not in few}})
    await bench.settled()
    if bench.reported["config"].get("truncated") or len(bench.reported["flows"]) != 3:
        raise Failed(f"{bench.reported['config']} {len(bench.reported['flows'])}")
    if not all(flow["outputs"]["viewers"].get("url") for flow in bench.reported["flows"].values()):
        raise Failed("what was left out did not come back")


@scenario()
async def more_flows_than_any_twin_holds_still_keep_the_summary(bench):
    flows = {f"{'n' * 59}-{number:04}": bench.flow(f"p{number}") for number in range(700)}
    bench.desire(flows)
    await bench.start()
    await bench.until("applied", lambda: bench.says(), 120)
    if bench.reported["summary"]["flows"] != 700 or bench.reported["config"].get("truncated") is not True:
        raise Failed(f"{bench.reported['summary']} {bench.reported['config']}")


@scenario()
async def long_errors_are_cut_and_many_of_them_fit(bench):
    flows = {f"bad-{number:03}-{'x' * 50}": {"input": {"listen": "é" * 800}, "outputs": {}} for number in range(120)}
    bench.desire(flows | {"good": bench.flow("good")})
    await bench.start()
    await bench.settled("partial", 60)
    if bench.reported["summary"]["flows"] < 1 or not bench.reported["config"]["errors"]:
        raise Failed(f"{bench.reported['summary']}")
    bench.hub.change({"flows": {name: None for name in flows}})
    await bench.settled()
    if bench.reported["config"].get("errors"):
        raise Failed("errors are left")


@scenario()
async def a_restart_tells_the_full_picture_once_and_deletes_what_is_obsolete(bench):
    bench.desire({"cam": bench.flow("v1")})
    bench.hub.twin.reported = {
        "legacy": {"a": [1, 2]},
        "flows": {"gone": {"state": "running"}},
        "module": {"name": "old", "extra": True},
    }
    await bench.start()
    await bench.settled()
    _, patch = bench.hub.reports.all[0]
    if patch.get("legacy", 0) is not None or patch["flows"].get("gone", 0) is not None:
        raise Failed(f"the first report leaves what is obsolete: {patch}")
    await bench.stop()
    before = len(bench.hub.reports.all)
    await bench.run()
    await bench.until("reported", lambda: len(bench.hub.reports.all) > before)
    await bench.settled()
    if any("config" in patch and patch["config"] is None for _, patch in bench.hub.reports.all):
        raise Failed("what is configured was deleted for a moment")
    full = [patch for _, patch in bench.hub.reports.all[before:] if "schemaVersion" in patch]
    if len(full) != 1:
        raise Failed(f"{len(full)} full pictures after a restart")
    bench.hub.cut()
    await bench.until("connected again", lambda: bench.hub.ready)
    await asyncio.sleep(3)
    if any("schemaVersion" in patch for _, patch in bench.hub.reports.all[before + 1 :]):
        raise Failed("the full picture came again after a reconnect")


@scenario()
async def nothing_is_reported_when_nothing_changes(bench):
    bench.desire({"cam": bench.flow("v1")})
    await bench.start()
    await bench.settled()
    await asyncio.sleep(7)
    before = len(bench.hub.reports.all)
    await asyncio.sleep(15)
    if len(bench.hub.reports.all) != before:
        raise Failed(f"{bench.hub.reports.all[before:]}")


@scenario(seconds=75)
async def a_publisher_that_comes_and_goes_is_reported_at_most_once_a_minute(bench):
    bench.desire({"cam": bench.flow("flap"), "steady": bench.flow("steady")})
    await bench.start()
    await bench.settled()
    await asyncio.sleep(1)
    steady = await bench.publish("steady")
    for _ in range(13):
        publisher = await bench.publish("flap")
        await asyncio.sleep(3)
        send_signal(publisher, signal.SIGTERM)
        await asyncio.sleep(2)
    if steady.returncode is not None:
        raise Failed("the steady publisher was lost")
    await bench.settled(timeout=80)
    if bench.reported["flows"]["steady"]["input"].get("video", {}).get("codec", "")[:5] != "avc1.":
        raise Failed(f"{bench.reported['flows']['steady']}")


@scenario(seconds=50)
async def a_target_that_refuses_for_ever_is_reported_once(bench):
    flow = bench.flow("v1")
    flow["outputs"]["away"] = {"push": f"rtmp://someone:geh%20eim@127.0.0.1:{bench.ports[3]}/app/k3y-of-the-stream"}
    bench.record.secrets += ["geh eim", "geh%20eim", "someone", "k3y-of-the-stream"]
    bench.desire({"cam": flow}, telemetryIntervalSeconds=5)
    await bench.start()
    await bench.settled()
    await bench.publish("v1")
    await asyncio.sleep(15)
    before, lines = len(bench.hub.reports.all), len(bench.module.lines)
    await asyncio.sleep(30)
    if len(bench.hub.reports.all) > before + 1 or len(bench.module.lines) > lines + 5:
        raise Failed(f"{bench.hub.reports.all[before:]} {bench.module.lines[lines:]}")
    await bench.settled()
    await bench.hub.call("getStatus")
