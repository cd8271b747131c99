"""Desired properties: late, lost, twice, out of order, and wrong."""

import asyncio
import signal

from bench import Failed
from module import send_signal
from twin import Twin

from . import scenario
from .clock import fast, forget_paces, one_connection

#: Seconds in which a change must be told. A report that waits until five have passed since the one before is later.
_AT_ONCE = 4


def _path(bench, name="cam"):
    """The path that a flow serves at, as reported: which version of it runs."""
    flow = bench.reported.get("flows", {}).get(name, {})
    return flow.get("outputs", {}).get("viewers", {}).get("url", "").rpartition("/")[2]


async def _runs(bench, path, name="cam"):
    await bench.until(f"{name} runs {path}", lambda: _path(bench, name) == path)


def _cam(bench, path):
    return {"flows": {"cam": bench.flow(path)}}


@scenario()
async def patches_before_the_answer_to_get_are_held(bench):
    bench.desire({"cam": bench.flow("v1")})
    bench.hub.get_delay = 4
    await bench.start()
    await bench.until("GET", lambda: bench.hub.ready)
    await asyncio.sleep(0.5)
    bench.hub.change(_cam(bench, "v2"))
    bench.hub.change(_cam(bench, "v3"))
    await bench.settled()
    await _runs(bench, "v3")


@scenario()
async def lost_double_old_and_jumping_patches_end_in_what_is_desired(bench):
    bench.desire({"cam": bench.flow("v1")})
    await bench.start()
    await bench.settled()
    bench.hub.change(_cam(bench, "lost"), deliver=False)
    bench.hub.change({"flows": {"two": bench.flow("two")}})
    await bench.settled()
    await _runs(bench, "lost")
    told = bench.hub.change(_cam(bench, "v4"))
    bench.hub.push(told)
    await bench.settled()
    old = _cam(bench, "old") | {"$version": bench.hub.twin.version - 1}
    bench.hub.push(old)
    bench.hub.push(old | {"$version": 1})
    await asyncio.sleep(1)
    await bench.settled()
    await _runs(bench, "v4")
    bench.hub.twin.version += 5
    bench.hub.push({"$version": bench.hub.twin.version})
    await bench.settled()
    bench.hub.push(_cam(bench, "unversioned"))
    bench.hub.change({"flows": {"two": None}})
    await bench.settled()
    await _runs(bench, "v4")
    session = bench.hub.session
    for payload in [b"", b"nonsense", b"[]", b"null", b'{"$version":"x"}', b"\xff\xfe", b'{"flows":5,"$version":99.5}']:
        session.publish("$iothub/twin/PATCH/properties/desired/?$version=99", payload)
    await asyncio.sleep(1)
    bench.hub.change(_cam(bench, "v9"))
    await bench.settled()
    await _runs(bench, "v9")


@scenario()
async def an_identity_made_anew_starts_at_a_lower_version_and_is_told_everything(bench):
    bench.desire({"cam": bench.flow("old")})
    bench.hub.twin.version = 40
    await bench.start()
    await bench.settled()
    await bench.hub.stop()
    new = Twin({"flows": {"new": bench.flow("new")}})
    bench.hub.twin = bench.hub.reports.twin = new
    await bench.hub.start(bench.hub_port)
    bench.hub.reports.may_repeat = True
    await bench.settled(timeout=60)
    if not bench.reported.get("module", {}).get("name"):
        raise Failed("the full picture is missing from the new twin")


@scenario()
async def an_empty_answer_without_a_version_is_not_a_configuration(bench):
    def unknown(_document):
        bench.hub.reports.may_repeat = True
        return 200, {"desired": {}, "reported": {}}

    bench.desire({"cam": bench.flow("v1")})
    bench.hub.get_answer = unknown
    await bench.start()
    await bench.until("asked", lambda: bench.hub.ready)
    await asyncio.sleep(3)
    if bench.reported.get("config", {}).get("status") == "applied":
        raise Failed(f"nothing is known, and reported: {bench.reported['config']}")
    bench.hub.get_answer = None
    await bench.until("asked again", lambda: bench.says(), 120)
    await bench.settled()
    bench.hub.get_answer = unknown
    bench.hub.cut()
    await bench.until("connected again", lambda: bench.hub.ready, 40)
    await asyncio.sleep(2)
    if "cam" not in (await bench.module.status()).get("flows", {}):
        raise Failed("what ran was given up")
    bench.hub.get_answer = None
    bench.hub.change(_cam(bench, "v2"))
    await bench.settled()
    await _runs(bench, "v2")


@scenario()
async def nulls_are_absence_wherever_they_are(bench):
    flow = bench.flow("v1") | {"description": None, "enabled": None}
    flow["outputs"]["gone"] = None
    flow["input"]["auth"] = None
    bench.desire({"cam": flow, "gone": None}, defaults=None, publicHost=None)
    await bench.start()
    await bench.until("applied", lambda: bench.says())
    bench.hub.twin.desired = {"flows": {"cam": bench.flow("v1")}}
    await bench.settled()
    bench.hub.change({"flows": {"cam": {"outputs": {"more": None}, "input": {"auth": None}}, "two": None}})
    await bench.settled()
    bench.hub.change({"flows": None})
    await bench.settled()
    if bench.reported.get("flows"):
        raise Failed(f"flows are still reported: {bench.reported['flows']}")


@scenario()
async def a_module_without_desired_properties_is_fine(bench):
    await bench.start()
    await bench.settled()
    bench.hub.change({"flows": {"cam": bench.flow("v1")}})
    await bench.settled()
    bench.hub.change({"flows": {"cam": None}})
    await bench.settled()


@scenario()
async def a_get_that_is_refused_is_made_again(bench):
    bench.desire({"cam": bench.flow("v1")})
    answers = iter([(429, None), (500, None), (503, None)])
    bench.hub.get_answer = lambda document: next(answers, (200, document))
    await bench.start()
    await bench.settled(timeout=60)


@scenario(seconds=30)
async def a_get_that_is_never_answered_is_made_again_on_the_same_connection(bench):
    bench.desire({"cam": bench.flow("v1")})
    answers = iter([None, None])
    bench.hub.get_answer = lambda document: next(answers, (200, document))
    await bench.start(**fast(10))
    await bench.settled(timeout=60)
    one_connection(bench)
    # It has waited two minutes by its own clock.
    bench.record.forget("telemetry before the twin")
    forget_paces(bench)


@scenario(seconds=30)
async def a_hub_that_takes_fifty_seconds_for_each_answer_is_waited_for(bench):
    bench.desire({"cam": bench.flow("v1")})
    bench.hub.serial = 5
    await bench.start(**fast(10))
    await bench.settled(timeout=60)
    await bench.until("ready", lambda: bench.answers("/readyz"))
    bench.hub.change(_cam(bench, "v2"))
    await bench.settled(timeout=60)
    await _runs(bench, "v2")
    one_connection(bench)
    if max(session.most_waiting for session in bench.hub.sessions) > 1:
        raise Failed("the twin was asked for again while the answer was still to come")
    forget_paces(bench)


@scenario(seconds=40)
async def a_change_that_was_never_pushed_is_found_within_fifteen_minutes(bench):
    bench.desire({"cam": bench.flow("v1")})
    await bench.start(**fast(30))
    await bench.settled()
    bench.hub.change(_cam(bench, "v2"), deliver=False)
    # Half an hour of the module's time; a token lasts longer.
    await bench.until("found", lambda: bench.says(), 60)
    if len(bench.hub.sessions) == 1:
        first, second = bench.hub.sessions[0].asked[:2]
        # Ten minutes, less what this machine may be late by, times thirty.
        if (second - first) * 30 < 450:
            raise Failed(f"asked again after {(second - first) * 30:.0f} s of the module's time")
    forget_paces(bench)


@scenario(seconds=40)
async def subscriptions_that_the_hub_lost_are_made_anew(bench):
    bench.desire({"cam": bench.flow("v1")})
    await bench.start(**fast(30))
    await bench.settled()
    bench.hub.session.subscribed.clear()
    bench.hub.change(_cam(bench, "v2"))
    await bench.until("found", lambda: bench.says(), 60)

    async def answers():
        status, _ = await bench.hub.call("ping") or (0, None)
        return status == 200

    await bench.until("ping is answered", answers, 60)
    forget_paces(bench)


@scenario()
async def faults_are_told_by_path_and_cost_only_their_flow(bench):
    bench.desire({"good": bench.flow("good"), "cam": bench.flow("v1")})
    await bench.start()
    await bench.settled()
    bench.hub.change({"flows": {"cam": {"input": {"listen": 5}}, "new": {"input": {"lisen": "rtmp://0.0.0.0/a"}}}})
    await bench.settled("partial")
    errors = bench.reported["config"]["errors"]
    for name, path in [("cam", "flows.cam.input.listen"), ("new", "flows.new.input")]:
        if path not in errors.get(name, ""):
            raise Failed(f"{name}: {errors}")
    if "new" in bench.reported["flows"] or bench.reported["flows"]["cam"].get("usingVersion") != 1:
        raise Failed(f"{bench.reported['flows']}")
    good = bench.reported["flows"]["good"]["since"]
    bench.hub.change({"flows": {"cam": {"input": bench.flow("v1")["input"]}, "new": None}})
    await bench.settled()
    if bench.reported["config"].get("errors") or bench.reported["flows"]["cam"].get("usingVersion"):
        raise Failed(f"errors remain: {bench.reported}")
    if bench.reported["flows"]["good"]["since"] != good:
        raise Failed("a flow without a fault was started anew")


@scenario()
async def wrong_types_anywhere_end_nothing(bench):
    bench.desire({"cam": bench.flow("v1")})
    await bench.start()
    await bench.settled()
    wrongs = [
        {"flows": 5},
        {"flows": []},
        {"flows": "x"},
        {"flows": {"cam": []}},
        {"flows": {"cam": True}},
        {"logLevel": 7},
        {"telemetryIntervalSeconds": -1},
        {"telemetryIntervalSeconds": 1e300},
        {"maxConnections": "many"},
        {"publicHost": {"a": 1}},
        {"defaults": 3},
        {"spool": []},
        {"unknown": 1},
        {"schemaVersion": 1},
        {"flows": {"cam": bench.flow("v1"), "": bench.flow("e"), "a b": bench.flow("f"), "_x": bench.flow("g")}},
    ]
    for wrong in wrongs:
        bench.hub.twin.desired = {"flows": {"cam": bench.flow("v1")}} | wrong
        bench.hub.twin.version += 2
        bench.hub.push({"$version": bench.hub.twin.version})

        def told():
            config = bench.reported.get("config", {})
            return config.get("desiredVersion") == bench.hub.twin.version and config.get("status") != "applied"

        await bench.until(f"{wrong} is told", told)
        if not bench.reported["config"].get("errors"):
            raise Failed(f"{wrong}: no error")
        if "cam" not in (await bench.module.status())["flows"]:
            raise Failed(f"{wrong}: cam was given up")
    bench.hub.twin.desired = {"flows": {"cam": bench.flow("v1")}}
    bench.hub.twin.version += 2
    bench.hub.push({"$version": bench.hub.twin.version})
    await bench.settled()


@scenario()
async def another_major_schema_version_rejects_the_document(bench):
    bench.desire({"cam": bench.flow("v1")})
    await bench.start()
    await bench.settled()
    bench.hub.change({"schemaVersion": "2.0"} | _cam(bench, "v2"))
    await bench.settled("rejected")
    if "_module" not in bench.reported["config"]["errors"] or _path(bench) != "v1":
        raise Failed(f"{bench.reported['config']}, {_path(bench)}")
    await bench.until("configRejected", lambda: bench.hub.telemetry.events("configRejected"))
    bench.hub.change({"schemaVersion": "1.7"})
    await bench.settled()
    await _runs(bench, "v2")


@scenario()
async def a_change_is_reported_at_once_and_a_burst_of_them_in_few_patches(bench):
    bench.desire({"cam": bench.flow("v1")})
    await bench.start()
    await bench.settled()
    for number in range(6):
        bench.hub.change(_cam(bench, f"s{number}"))
        await bench.until("reported", lambda: bench.says(), _AT_ONCE)
    before = len(bench.hub.reports.all)
    for number in range(50):
        bench.hub.change(_cam(bench, f"b{number}"))
    await bench.settled()
    if len(bench.hub.reports.all) - before > 25:
        raise Failed(f"{len(bench.hub.reports.all) - before} reports for fifty changes")
    await _runs(bench, "b49")


@scenario()
async def comments_and_keys_with_a_dollar_are_ignored(bench):
    flow = bench.flow("v1") | {"$note": "x"}
    bench.desire({"cam": flow, "$off": {"input": 5}}, **{"$comment": ["anything"]})
    await bench.start()
    await bench.settled()


@scenario()
async def a_change_is_reported_at_once_although_a_player_or_the_workload_api_hangs(bench):
    bench.desire({"cam": bench.flow("v1")})
    await bench.start()
    await bench.settled()
    await bench.publish("v1")
    player = await bench.play("v1")
    await bench.until("receiving", lambda: bench.input_is("cam", "receiving"))
    await asyncio.sleep(3)
    send_signal(player, signal.SIGSTOP)
    bench.workload.hang = True
    url = f"rtmps://127.0.0.1:{bench.ports[1]}/live/a"
    secure = {"input": {"listen": url}, "outputs": {"viewers": {"serve": url}}}
    for patch in [_cam(bench, "v2"), {"flows": {"cam": None}}, {"flows": {"tls": secure}}, {"flows": {"tls": None}}]:
        bench.hub.change(patch)
        await bench.until(f"{patch} is reported", lambda: bench.says(), _AT_ONCE)
    bench.workload.hang = False
    await bench.settled()
