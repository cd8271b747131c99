"""Direct methods: every one, with every kind of payload."""

import asyncio
import os

from bench import Failed

from . import scenario


async def _expect(bench, status, name, payload=None, raw=None):
    found = await bench.hub.call(name, payload, raw)
    if found is None or found[0] != status:
        raise Failed(f"{name} {payload!r} {(raw or b'')[:40]!r}: {found}, expected {status}")
    return found[1]


@scenario()
async def every_method_answers_good_and_bad_payloads(bench):
    bench.desire({"cam": bench.flow("a"), "two": bench.flow("b")})
    await bench.start()
    await bench.settled()
    for raw in [b"", b"null", b"{}", b" "]:
        pong = await _expect(bench, 200, "ping", raw=raw)
        if set(pong) != {"name", "version", "uptimeSeconds"} or pong["name"] != bench.name:
            raise Failed(f"ping: {pong}")
        status = await _expect(bench, 200, "getStatus", raw=raw)
        if set(status["flows"]) != {"cam", "two"} or status["summary"]["flows"] != 2:
            raise Failed(f"getStatus: {status}")
    one = await _expect(bench, 200, "getStatus", {"flow": "cam"})
    if set(one["flows"]) != {"cam"}:
        raise Failed(f"getStatus of one: {one}")
    first = await _expect(bench, 200, "getStatus", {"limit": 1})
    rest = await _expect(bench, 200, "getStatus", {"limit": 1, "offset": first["next"]})
    if set(first["flows"]) | set(rest["flows"]) != {"cam", "two"} or "next" in rest:
        raise Failed(f"pages: {first} {rest}")
    await _expect(bench, 404, "getStatus", {"flow": "nobody"})
    await _expect(bench, 200, "restartFlow", {"flow": "cam"})
    await _expect(bench, 404, "restartFlow", {"flow": "nobody"})
    await _expect(bench, 200, "setLogLevel", {"level": "debug", "seconds": 2})
    bad = [
        b"nonsense",
        b"[]",
        b"5",
        b'"x"',
        b"\xff\xfe",
        b"{",
        b'{"flow":5}',
        b"[" * 5000,
        b'{"other":1}',
        b'{"flow":"' + b"x" * 100_000 + b'"}',
    ]
    for raw in bad:
        for name in ["restartFlow", "setLogLevel"]:
            status, body = await bench.hub.call(name, raw=raw)
            if status not in (400, 404) or (status == 400 and not body):
                raise Failed(f"{name} {raw[:30]!r}: {status} {body}")
    for payload in [{"offset": -1}, {"limit": "x"}, {"limit": 0}, {"flow": 5}, {"other": 1}]:
        await _expect(bench, 400, "getStatus", payload)
    for raw in [b"nonsense", b"[]", b"5", b"\xff"]:
        await _expect(bench, 400, "getStatus", raw=raw)
    for payload in [{}, {"level": "loud"}, {"level": "info", "seconds": -1}, {"level": "info", "seconds": "x"}]:
        await _expect(bench, 400, "setLogLevel", payload)
    await bench.settled()


@scenario()
async def unknown_and_escaped_names_are_answered(bench):
    await bench.start()
    await bench.settled()
    names = [
        "nothing",
        "PING2",
        "a%20b",
        "%24edgeHub",
        "%C3%BC",
        "ü",
        "a.b-c_d",
        "x" * 200,
        "snapshot",
        "listRecordings",
        "closeSegment",
        "recordEvent",
        "deleteRecordings",
        "%",
        "%zz",
        "a%2Fb",
        "a b",
    ]
    for name in names:
        await _expect(bench, 404, name, {})
    await _expect(bench, 200, "%70ing")
    await bench.settled()


@scenario()
async def forty_calls_at_once_are_each_answered_once(bench):
    bench.desire({f"cam{number}": bench.flow(f"p{number}") for number in range(60)})
    await bench.start()
    await bench.settled()
    names = ["ping", "getStatus", "restartFlow", "nothing"] * 10
    answers = await asyncio.gather(
        *(bench.hub.call(name, {"flow": "cam1"} if name == "restartFlow" else None) for name in names)
    )
    for name, (status, _) in zip(names, answers, strict=True):
        if status != (404 if name == "nothing" else 200):
            raise Failed(f"{name}: {status}")
    twice = await asyncio.gather(*(bench.hub.call("restartFlow", {"flow": "cam2"}) for _ in range(2)))
    if [status for status, _ in twice] != [200, 200]:
        raise Failed(f"the same call twice: {twice}")
    await bench.settled()


@scenario()
async def a_long_status_comes_in_pages(bench):
    bench.desire({f"{'n' * 58}-{number:03}": bench.flow(f"{'p' * 90}{number}") for number in range(150)})
    await bench.start()
    await bench.until("applied", lambda: bench.says(), 60)
    seen, offset = set(), 0
    while offset is not None:
        page = await _expect(bench, 200, "getStatus", {"offset": offset, "limit": 1000})
        seen |= set(page["flows"])
        if page.get("next") is not None and page["next"] <= offset:
            raise Failed(f"next is {page['next']} at {offset}")
        offset = page.get("next")
    if len(seen) != 150:
        raise Failed(f"{len(seen)} flows in all pages")
    default = await _expect(bench, 200, "getStatus")
    if len(default["flows"]) != 50 or default["next"] != 50:
        raise Failed(f"{len(default['flows'])} flows by default, next {default.get('next')}")


@scenario()
async def a_log_level_holds_as_long_as_asked(bench):
    await bench.start()
    await bench.settled()

    def told(word):
        return any(line.startswith("<6>") and word in line for line in bench.module.lines)

    async def told_again():
        await _expect(bench, 200, "restartFlow", {"flow": "quiet"})
        return told("restartFlow")

    await _expect(bench, 200, "setLogLevel", {"level": "warning", "seconds": 120})
    bench.hub.change({"flows": {"quiet": bench.flow("a")}})
    await bench.settled()
    if told("quiet"):
        raise Failed("lines of level info are still written")
    await _expect(bench, 200, "setLogLevel", {"level": "warning", "seconds": 1})
    await bench.until("lines of level info are written again", told_again)
    await bench.settled()


@scenario()
async def a_disk_that_hangs_holds_up_neither_a_document_nor_a_method(bench):
    bench.desire({"cam": bench.flow("a")})
    await bench.start()
    await bench.settled()
    # What is written next waits until somebody reads it.
    (kept,) = [file for file in (bench.folder / "state").iterdir() if file.suffix == ".json"]
    disk = kept.with_name(kept.name + ".new")
    os.mkfifo(disk)
    bench.hub.change({"flows": {"two": bench.flow("b")}})
    await bench.until("two runs", lambda: _runs(bench, "two"))
    await bench.settled()
    found = await bench.hub.call("restartFlow", {"flow": "cam"}, timeout=60)
    end = await asyncio.to_thread(os.open, disk, os.O_RDONLY)
    disk.unlink()
    os.close(end)
    if found is None or found[0] != 200:
        raise Failed(f"restartFlow: {found}")
    await bench.settled()


async def _runs(bench, flow):
    return flow in (await bench.module.status()).get("flows", {})
