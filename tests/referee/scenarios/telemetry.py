"""Events and counters, with and without a hub."""

import asyncio
import signal

from bench import Failed
from module import send_signal
from session import REPORT, TELEMETRY

from . import scenario
from .clock import fast, forget_paces


@scenario()
async def what_happens_is_told_as_events(bench):
    bench.desire({"cam": bench.flow("a"), "two": bench.flow("b")})
    await bench.start()
    await bench.settled()
    publisher = await bench.publish("a")
    player = await bench.play("a")
    for name in ["moduleStarted", "configApplied", "flowStarted", "inputConnected"]:
        await bench.until(name, lambda: bench.hub.telemetry.events(name))
    send_signal(player, signal.SIGKILL)
    send_signal(publisher, signal.SIGKILL)
    await bench.until("inputLost", lambda: bench.hub.telemetry.events("inputLost"))
    bench.hub.change({"flows": {"two": None}})
    await bench.until("flowStopped", lambda: bench.hub.telemetry.events("flowStopped"))
    await bench.settled()


@scenario()
async def counters_come_as_often_as_asked(bench):
    bench.desire({f"cam{number}": bench.flow(f"p{number}") for number in range(60)}, telemetryIntervalSeconds=2)
    await bench.start()
    await bench.settled()
    await bench.until("three rounds", lambda: _rounds(bench) >= 3)
    named = {name for message in bench.hub.telemetry.of("stats") for name in message.body.get("flows", {})}
    if len(named) != 60:
        raise Failed(f"counters of {len(named)} flows: {bench.hub.telemetry.of('stats')[0].body}")
    bench.hub.change({"telemetryIntervalSeconds": 0})
    await bench.settled()
    await asyncio.sleep(1)
    before = len(bench.hub.telemetry.of("stats"))
    await asyncio.sleep(5)
    if len(bench.hub.telemetry.of("stats")) != before:
        raise Failed("counters still come")


def _rounds(bench):
    return sum("cam0" in message.body.get("flows", {}) for message in bench.hub.telemetry.of("stats"))


@scenario(seconds=35)
async def events_wait_for_the_hub_in_order_and_before_counters(bench):
    bench.desire({f"cam{number}": bench.flow(f"p{number}") for number in range(3)}, telemetryIntervalSeconds=1)
    await bench.start()
    await bench.settled()
    await bench.until("counters", lambda: bench.hub.telemetry.of("stats"))
    await bench.hub.stop()
    before = len(bench.hub.telemetry.messages)
    for number in range(3):
        publisher = await bench.publish(f"p{number}")
        await bench.until("receiving", lambda: bench.input_is(f"cam{number}", "receiving"))
        send_signal(publisher, signal.SIGKILL)
        await bench.until("gone", lambda: bench.input_is(f"cam{number}", "waiting"))
    await asyncio.sleep(20)
    await bench.hub.start(bench.hub_port)
    await bench.settled(timeout=90)
    for name in ["inputConnected", "inputLost"]:
        await bench.until(name, lambda: len({e["flow"] for e in bench.hub.telemetry.events(name)}) == 3, 70)
    late = [
        message.body["at"]
        for message in bench.hub.telemetry.messages[before:]
        if message.output == "events" and message.body["event"].startswith("input")
    ]
    if late != sorted(late):
        raise Failed(f"events came out of order: {late}")


@scenario()
async def unacknowledged_messages_are_few_and_come_again(bench):
    bench.desire({"cam": bench.flow("a")}, telemetryIntervalSeconds=1)
    await bench.start()
    await bench.settled()
    bench.hub.hold_acks = True
    # An event each: more than may be in flight.
    more = {f"more{number}": bench.flow(f"m{number}") for number in range(30)}
    bench.hub.change({"flows": more})
    await bench.settled()
    unacked = bench.hub.session.unacked
    held = await bench.until("messages are held back", lambda: len(unacked) >= 8 and len(unacked))
    bench.hub.cut()
    bench.hub.hold_acks = False
    before = len(bench.hub.telemetry.messages)
    await bench.until("connected again", lambda: bench.hub.ready, 40)
    await bench.until("sent again", lambda: len(bench.hub.telemetry.messages) - before >= held)
    started = bench.hub.telemetry.events
    await bench.until("all is told", lambda: set(more) <= {event["flow"] for event in started("flowStarted")})
    await bench.settled()


@scenario(seconds=40)
async def a_long_time_without_a_hub_costs_counters_before_events(bench):
    flows = {f"cam{number:03}": bench.flow(f"p{number}") for number in range(700)}
    bench.desire(flows, telemetryIntervalSeconds=1)
    await bench.start()
    await bench.until("applied", lambda: bench.says(), 60)
    await bench.until("counters", lambda: bench.hub.telemetry.of("stats"))
    await bench.hub.stop()
    before = len(bench.hub.telemetry.messages)
    publisher = await bench.publish("p7")
    await bench.until("receiving", lambda: bench.input_is("cam007", "receiving"))
    send_signal(publisher, signal.SIGKILL)
    await bench.until("dropping", lambda: bench.module.value("av_telemetry_dropped_total"), 90)
    await bench.hub.start(bench.hub_port)
    for name in ["inputConnected", "inputLost"]:
        await bench.until(name, lambda: any(e["flow"] == "cam007" for e in bench.hub.telemetry.events(name)), 90)
    size = sum(len(str(message.body)) for message in bench.hub.telemetry.messages[before:])
    if size > 16 * 1024 * 1024:
        raise Failed(f"{size} bytes were kept")
    await bench.until("applied", lambda: bench.says(), 60)


def _said(bench, words):
    return any(words in line for line in bench.module.lines)


@scenario()
async def a_hub_whose_disk_is_full_costs_telemetry_and_nothing_else(bench):
    bench.desire({"cam": bench.flow("v1")}, telemetryIntervalSeconds=1)
    bench.hub.store_full = True
    await bench.start()
    await bench.settled()
    await bench.until("said", lambda: _said(bench, "is its disk full?"))
    await bench.until("connected again", lambda: bench.hub.ready)
    connections = len(bench.hub.sessions)
    for path in ["v2", "v3"]:
        bench.hub.change({"flows": {"cam": bench.flow(path)}})
        await bench.settled()
    status, _ = await bench.hub.call("ping") or (0, None)
    if status != 200:
        raise Failed(f"ping: {status}")
    await asyncio.sleep(5)
    if len(bench.hub.sessions) != connections or connections > 4:
        raise Failed(f"{connections} connections, then {len(bench.hub.sessions)}")
    if _said(bench, "another process"):
        raise Failed("the log blames another process")


@scenario()
async def on_another_connection_too_a_report_goes_before_telemetry(bench):
    bench.desire({"cam": bench.flow("a")})
    await bench.start()
    await bench.settled()
    await bench.hub.stop()
    await bench.publish("a")
    await bench.until("receiving", lambda: bench.input_is("cam", "receiving"))
    await bench.hub.start(bench.hub_port)
    # There is an event to tell, and a state to report.
    await bench.until("inputConnected", lambda: bench.hub.telemetry.events("inputConnected"), 60)
    said = [what for session in bench.hub.sessions[1:] for what in session.said]
    if REPORT not in said[: said.index(TELEMETRY)]:
        raise Failed(f"after the first connection came {said}")
    await bench.settled()


@scenario(seconds=35)
async def telemetry_that_was_held_back_is_sent_once_the_disk_has_room(bench):
    bench.desire({"cam": bench.flow("v1")})
    bench.hub.store_full = True
    await bench.start(**fast(30))
    await bench.until("said", lambda: _said(bench, "is its disk full?"))
    bench.hub.store_full = False
    bench.hub.change({"flows": {"two": bench.flow("two")}})
    # Ten minutes of the module's time, and some.
    for name in ["moduleStarted", "flowStarted"]:
        await bench.until(name, lambda: bench.hub.telemetry.events(name), 60)
    await bench.settled()
    forget_paces(bench)
