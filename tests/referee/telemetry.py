"""The referee of telemetry: topics, property bags, bodies, and how many."""

import json
import re
import time
from dataclasses import dataclass
from urllib.parse import unquote

import lag
import shape

#: What a body may have, as modules promise.
MAX_BODY = 240 * 1024
#: So long after a connection began, messages may come that waited for it: twin and report go first, and a report has
#: its pace.
_WAITED = 20
_ALLOWED = {"$.on", "$.mid", "$.cid", "$.uid", "$.ct", "$.ce", "$.exp", "$.ctime", "$.schema", "$.sub"}


@dataclass
class Message:
    output: str
    body: dict
    properties: dict
    at: float
    dup: bool


def properties(bag, record):
    """The properties of a bag, or None where edgeHub would lose the message."""
    found = {}
    for part in filter(None, bag.split("&")):
        key, equals, value = part.partition("=")
        if not equals or not key or "=" in value or "+" in part:
            record.add("property bag", bag)
            return None
        key, value = unquote(key), unquote(value)
        if key in found or key.lower() in ("deviceid", "moduleid"):
            record.add("property bag", f"{key} in {bag}")
            return None
        if key.startswith("$") and key not in _ALLOWED:
            record.add("property bag", f"unknown system property {key}")
        found[key] = value
    return found


class Telemetry:
    """All messages of one module."""

    def __init__(self, record):
        self.record, self.messages = record, []
        self._seen, self._numbers = {}, {}

    def process_started(self):
        self._seen.clear()

    def take(self, bag, packet, age=1e9):
        """Judges a message; keeps it when edgeHub would. `age` is the connection's: on a new one messages waited."""
        record = self.record
        if "/" in bag or bag.startswith("?"):
            record.add("property bag", bag)
            return
        found = properties(bag, record)
        if found is None:
            return
        output = found.get("$.on")
        record.check(output in ("events", "stats"), "output", output)
        record.check(found.get("$.ct") == "application/json", "content type", found)
        record.check(found.get("$.ce") == "utf-8", "content encoding", found)
        record.check(len(packet.payload) <= MAX_BODY, "message too large", len(packet.payload))
        try:
            body = json.loads(packet.payload.decode("utf-8"))
        except ValueError as error:
            record.add("message is not JSON", error)
            return
        mid = found.get("$.mid")
        if mid and self._numbers.setdefault(mid, packet.payload) != packet.payload:
            record.add("message id used again", mid)
        message = Message(output, body, found, time.monotonic(), packet.dup)
        if output == "events":
            self._event(message, age < _WAITED)
        self.messages.append(message)

    def _event(self, message, waited):
        body = message.body
        for fault in shape.event(body):
            self.record.add("event", f"{fault} in {body}")
        key = (body.get("flow"), body.get("event"))
        stamp = re.sub(r"\.\d+", "", str(body.get("at")))
        try:
            at = time.mktime(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ"))
        except ValueError:
            return
        same = self._seen.get(key)
        if same and same[1] == body:
            return  # sent again because the PUBACK was lost
        # What is gathered is told a minute later with the time of the first; what waited for a hub comes at once.
        minute = 58 - lag.worst()
        if same and not same[3] and at - same[0] < minute and message.at - same[2] < minute:
            self.record.add("more than one event a minute", f"{at - same[0]:.0f} s: {body}")
        self._seen[key] = (at, body, message.at, waited)

    def of(self, output):
        return [message for message in self.messages if message.output == output]

    def events(self, name):
        return [message.body for message in self.of("events") if message.body.get("event") == name]
