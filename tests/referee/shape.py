"""What a module's reported properties, events, and log lines look like: docs/operate.md, docs/twin.md."""

import re

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
LOG = re.compile(r"<([0-7])> \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \+\d\d:\d\d \[([A-Z]{3})\] - \S.*")
LEVELS = {"3": "ERR", "4": "WRN", "6": "INF", "7": {"DBG", "TRC", "VRB"}}
FLOW = {"disabled", "failed", "retrying", "waiting", "running"}
INPUT = {"waiting", "receiving", "retrying", "failed"}
OUTPUT = {"waiting", "serving", "pushing", "retrying", "failed"}
EVENTS = {
    "moduleStarted",
    "configApplied",
    "configRejected",
    "flowStarted",
    "flowStopped",
    "inputConnected",
    "inputLost",
    "outputConnected",
    "outputLost",
    "pictureFrozen",
    "clientRejected",
}
_TOP = {"schemaVersion": str, "module": dict, "config": dict, "summary": dict, "flows": dict}
_MODULE = {"name": str, "version": str, "build": str, "startedAt": TIME}
_CONFIG = {"desiredVersion": int, "status": {"applied", "partial", "rejected"}, "errors": dict, "truncated": bool}
_SUMMARY = dict.fromkeys(["flows", "running", "waiting", "retrying", "failed", "clients"], int)
_FLOW = {
    "state": FLOW,
    "since": TIME,
    "error": str,
    "usingVersion": int,
    "instances": dict,
    "input": dict,
    "outputs": dict,
}
_ENDPOINT = {"error": str, "url": str, "clients": int, "video": dict, "audio": dict}
_TRACK = {
    "codec": str,
    "width": int,
    "height": int,
    "fps": (int, float),
    "sampleRate": int,
    "channels": int,
    "dropped": (str, bool),
    "stalled": bool,
}


def _check(value, form, path, needed=()):
    """Faults of an object against {key: type, set of texts, or pattern}."""
    for key in needed:
        if key not in value:
            yield f"{path}.{key} is missing"
    for key, item in value.items():
        want = form.get(key)
        here = f"{path}.{key}"
        if want is None:
            yield f"{here} is not promised"
        elif isinstance(want, set):
            if item not in want:
                yield f"{here}: {item!r}"
        elif isinstance(want, re.Pattern):
            if not isinstance(item, str) or not want.fullmatch(item):
                yield f"{here}: {item!r} is no time"
        elif not isinstance(item, want) or (isinstance(item, bool) and want is int):
            yield f"{here}: {item!r}"
        if key == "error" and len(str(item).encode()) > 512:
            yield f"{here} has {len(str(item).encode())} bytes"


def reported(document):
    """What is wrong with the merged reported properties."""
    yield from _check(document, _TOP, "", ["schemaVersion", "module", "summary"])
    yield from _check(document.get("module", {}), _MODULE, "module", _MODULE)
    config = document.get("config", {})
    # Absent until a configuration has been handled; that something is left out may have to be said before.
    yield from _check(config, _CONFIG, "config", ["status"] if config.keys() - {"truncated"} else [])
    yield from _check(document.get("summary", {}), _SUMMARY, "summary", _SUMMARY)
    for name, text in (config.get("errors") or {}).items():
        if not isinstance(text, str) or len(text.encode()) > 512:
            yield f"config.errors.{name}: {text!r}"
    for name, flow in document.get("flows", {}).items():
        yield from _check(flow, _FLOW, f"flows.{name}", ["state"])
        ends = [("input", flow.get("input", {}), INPUT)]
        ends += [(f"outputs.{key}", item, OUTPUT) for key, item in flow.get("outputs", {}).items()]
        for where, item, states in ends:
            where = f"flows.{name}.{where}"
            yield from _check(item, _ENDPOINT | {"state": states}, where, ["state"] if item else [])
            for kind in ("video", "audio"):
                yield from _check(item.get(kind, {}), _TRACK, f"{where}.{kind}")


def log_line(line):
    """What is wrong with a line that a module wrote, or None."""
    found = LOG.fullmatch(line)
    if not found:
        return f"form: {line}"
    if len(line.encode()) > 16 * 1024:
        return f"a line of {len(line.encode())} bytes"
    wanted = LEVELS.get(found[1], {"FTL", "CRT", "NTC"})
    if found[2] not in (wanted if isinstance(wanted, set) else {wanted}):
        return f"level {found[1]} is not {found[2]}"
    return None


def event(body):
    """What is wrong with the body of an event."""
    if body.get("event") not in EVENTS:
        yield f"event {body.get('event')!r}"
    for key in body:
        if key not in {"event", "flow", "output", "at", "detail", "count"}:
            yield f"key {key!r}"
    if not TIME.fullmatch(str(body.get("at"))):
        yield f"at {body.get('at')!r}"
    if not isinstance(body.get("count"), int) or body["count"] < 1:
        yield f"count {body.get('count')!r}"
