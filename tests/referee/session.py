"""One connection of a module to edgeHub, from CONNECT to its end."""

import asyncio
import re
import struct
import time
from urllib.parse import parse_qsl

import lag
import packet as mqtt
from twin import compact

_METHOD = re.compile(r"\$iothub/methods/res/([^/]*)/\?(.*)")
_FILTERS = {"$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#", "$iothub/methods/POST/#"}
#: What every module needs at once after each CONNACK.
_GET, _REPORT = "$iothub/twin/GET/", "$iothub/twin/PATCH/properties/reported/"
GET, REPORT, TELEMETRY = "get", "report", "telemetry"


class Session:
    """Reads what the module sends, judges it, and answers as edgeHub does."""

    def __init__(self, hub, reader, writer):
        self.hub, self.record = hub, hub.record
        self.reader, self.writer = reader, writer
        self.connect, self.ended, self.left = None, None, None
        self.subscribed = {}
        self.accepted = self.got_twin = self.disconnected = self.present = False
        self.began = self.heard = time.monotonic()
        self.unacked, self._sent, self._number = set(), {}, 0
        self._tasks, self._held = set(), []
        #: When a report came that is not answered yet, and when the last one was answered.
        self._reporting, self._answered = None, -1e9
        #: The twin was asked for and the answer is sent; twin requests take turns.
        self.knows_twin, self._turn = False, asyncio.Lock()
        #: What came, in order: GET, REPORT or TELEMETRY; when each GET came; how many wait for their answer, and the most
        #: that did at a time.
        self.said, self.asked = [], []
        self.waiting = self.most_waiting = 0

    # --- life ---

    async def run(self):
        watch = self._task(self._watch())
        try:
            while (packet := await mqtt.read(self.reader)) is not None:
                while self.hub.hang:
                    await asyncio.sleep(0.1)
                if self.ended:
                    break
                if not self.connect and time.monotonic() - self.began < self.hub.deaf:
                    await asyncio.sleep(2)
                    break
                self.heard = time.monotonic()
                if self.disconnected:
                    self.record.add("packet after DISCONNECT", packet)
                if not await self._packet(packet):
                    break
        except mqtt.Malformed as error:
            self.record.add("connection closed: malformed", error)
        except (ConnectionError, asyncio.IncompleteReadError, OSError):
            pass
        finally:
            watch.cancel()
            self.close("by the module")

    def close(self, why):
        if self.ended:
            return
        self.ended, self.left = why, time.monotonic()
        self.hub.leave(self)
        for task in self._tasks:
            task.cancel()
        if self.writer.transport:
            self.writer.transport.abort()

    def _task(self, work):
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _watch(self):
        """What the module owes and does not do."""
        while True:
            await asyncio.sleep(0.5)
            now = time.monotonic()
            if self.hub.hang or not self.connect or self.ended:
                self.heard = now
                continue
            silent, late = now - self.heard, lag.worst()
            self.record.check(silent < self.connect.keep_alive + 3 + late, "keep-alive exceeded", f"{silent:.0f} s")
            for number, at in list(self._sent.items()):
                if now - at > 5 + late:
                    self.record.add("PUBACK missing", number)
                    del self._sent[number]
            if self.accepted and 10 + late < now - self.began < 10.5 + late and not self.got_twin:
                self.record.add("no GET within 10 s of a connection", list(self.subscribed))

    @property
    def in_doubt(self):
        """The module may not know what became of its last report."""
        return self._reporting is not None or time.monotonic() - self._answered < 1

    # --- to the module ---

    def _send(self, data):
        if not self.ended and not self.hub.hang:
            self.writer.write(data)

    def takes(self, prefix):
        """The QoS of the subscription that covers a topic, as (qos,), or nothing."""
        return [(qos,) for name, qos in self.subscribed.items() if prefix.startswith(name.rstrip("#"))]

    def publish(self, topic, payload, flags=0):
        """Publishes with min(subscribed QoS, 1); without a subscription it is dropped."""
        covers = self.takes(topic)
        if not covers:
            return
        qos = min(covers[0][0], 1)
        if qos:
            self._number = self._number % 65535 + 1
            self._sent[self._number] = time.monotonic()
        self._send(mqtt.publish(topic, payload, qos, self._number, flags))

    def push(self, patch):
        version = patch.get("$version")
        tail = f"?$version={version}" if version is not None else ""
        self.publish(f"$iothub/twin/PATCH/properties/desired/{tail}", compact(patch).encode())

    # --- from the module ---

    async def _packet(self, packet):
        if isinstance(packet, mqtt.Connect):
            return await self._connect(packet)
        if not self.connect:
            self.record.add("no CONNECT first", packet)
            return False
        if isinstance(packet, mqtt.Publish):
            return await self._publish(packet)
        if packet.kind == mqtt.PUBACK:
            self.record.check(self._sent.pop(packet.id, None) is not None, "PUBACK for nothing", packet.id)
        elif packet.kind == mqtt.SUBSCRIBE:
            return self._subscribe(packet)
        elif packet.kind == mqtt.UNSUBSCRIBE:
            self._send(mqtt.encode(mqtt.UNSUBACK, struct.pack(">H", packet.id)))
        elif packet.kind == mqtt.PINGREQ:
            self._send(mqtt.encode(mqtt.PINGRESP))
        elif packet.kind == mqtt.DISCONNECT:
            self.disconnected = True
        return True

    async def _connect(self, packet):
        if self.connect:
            self.record.add("second CONNECT", packet.client_id)
            return False
        self.connect = packet
        code = self.hub.judge(packet)
        await asyncio.sleep(self.hub.connack_delay)
        if code == 0:
            self.present = self.hub.enter(self, packet.clean)
        self.accepted, self.began = code == 0, time.monotonic()
        self._send(mqtt.encode(mqtt.CONNACK, bytes([int(bool(code == 0 and self.present)), code])))
        return code == 0

    def _subscribe(self, packet):
        me = self.hub.identity
        allowed = _FILTERS | {f"devices/{me.device}/modules/{me.module}/inputs/#"}
        for name, qos in packet.filters:
            self.record.check(name in allowed, "subscription", name)
            self.record.check(qos <= 1, "subscription QoS", f"{name} {qos}")
            self.subscribed[name] = qos
        if not self.hub.suback:
            return True
        granted = bytes(min(qos, 1) for _, qos in packet.filters)
        self._send(mqtt.encode(mqtt.SUBACK, struct.pack(">H", packet.id) + granted))
        return True

    async def _publish(self, packet):
        hub, record = self.hub, self.record
        record.scan(f"publish to {packet.topic}", packet.payload)
        record.scan("topic", packet.topic)
        record.check(not packet.retain, "retain", packet.topic)
        if packet.qos == 2:
            record.add("connection closed: QoS 2", packet.topic)
            return False
        if packet.qos:
            record.check(packet.id not in self.unacked, "packet identifier in use", packet.id)
            self.unacked.add(packet.id)
            record.check(len(self.unacked) <= 16, "more than 16 in flight", len(self.unacked))
        if hub.cut_when and hub.cut_when(packet):
            self._reporting = time.monotonic()
            self.close("cut")
            return False
        me = hub.identity
        events = f"devices/{me.device}/modules/{me.module}/messages/events/"
        topic, _, query = packet.topic.partition("?")
        method = _METHOD.fullmatch(packet.topic)
        if packet.topic.startswith(events):
            # What a full disk closes the connection over comes last.
            self.said.append(TELEMETRY)
            waited = time.monotonic() - self.began
            first = "GET" if not self.knows_twin else None if hub.reports.told else "the first report"
            record.check(not first or waited > 115, "telemetry before the twin", f"before {first}, after {waited:.1f} s")
            if hub.store_full:
                self.close("store full")
                return False
            hub.telemetry.take(packet.topic.removeprefix(events), packet, waited)
        elif topic == _GET and self._request(query, required=True):
            self.said.append(GET)
            self.asked.append(time.monotonic())
            self.waiting += 1
            self.most_waiting = max(self.most_waiting, self.waiting)
            await self._turn_of(self._get, dict(parse_qsl(query))["$rid"])
        elif topic == _REPORT and self._request(query):
            self.said.append(REPORT)
            await self._turn_of(self._report, dict(parse_qsl(query))["$rid"], packet.payload)
        elif method:
            hub.answered(self, dict(parse_qsl(method[2])).get("$rid"), method[1], packet.payload)
        elif packet.topic.startswith("$iothub/"):
            record.add("connection closed: topic", packet.topic)
            return False
        else:
            record.add("dropped: topic", packet.topic)
        if packet.qos:
            self._acknowledge(packet.id)
        return True

    def _acknowledge(self, number):
        if self.hub.hold_acks:
            self._held.append(number)
            return
        for held in [*self._held, number]:
            self.unacked.discard(held)
            self._send(mqtt.encode(mqtt.PUBACK, struct.pack(">H", held)))
        self._held.clear()

    def release(self):
        """Acknowledges what was held back."""
        if self._held:
            self._acknowledge(self._held.pop())

    def _request(self, query, required=False):
        """Whether a twin request has an identifier that was never used before."""
        number = dict(parse_qsl(query)).get("$rid")
        if not number:
            self.record.add("twin request without $rid", query)
            return False
        self.record.check(number not in self.hub.requests, "$rid used again", number)
        self.hub.requests.add(number)
        self.record.check(self.takes("$iothub/twin/res/"), "twin request before its subscription", number)
        return True

    async def _turn_of(self, request, *arguments):
        """Handles a twin request: at once, or after those before it and as slowly as the hub is asked to be."""
        if not self.hub.serial:
            request(*arguments)
            return

        async def slowly():
            async with self._turn:
                await asyncio.sleep(self.hub.serial)
                request(*arguments)

        self._task(slowly())

    def _get(self, number):
        hub = self.hub
        if not self.got_twin:
            missing = _FILTERS - set(self.subscribed)
            self.record.check(not missing, "GET before all subscriptions", missing)
        self.got_twin = True
        status, document = 200, hub.twin.document()
        if hub.get_answer:
            answer = hub.get_answer(document)
            if answer is None:
                return
            status, document = answer
        if not hub.get_delay:
            self._answer(number, status, document)
            return

        async def late():
            await asyncio.sleep(hub.get_delay)
            self._answer(number, status, document)

        self._task(late())

    def _answer(self, number, status, document):
        self.waiting -= 1
        self.knows_twin |= status == 200
        self.hub.reports.changed = time.monotonic()
        body = b"" if status != 200 else compact(document).encode()
        self.publish(f"$iothub/twin/res/{status}/?$rid={number}", body)

    def _report(self, number, payload):
        hub, reports = self.hub, self.hub.reports
        in_flight = self._reporting and time.monotonic() - self._reporting < 110
        self.record.check(not in_flight, "two reports in flight", number)
        self._reporting = time.monotonic()
        status, merged = reports.take(payload)
        asked = hub.report_answer(payload) if hub.report_answer else None
        reports.may_repeat = bool(asked) or status != 204
        if asked == "lost after storing":
            hub.twin.reported = merged
            return
        if asked == "lost":
            return
        status = asked or status
        if status == 204:
            hub.twin.reported = merged
            hub.twin.reported_version += 1
        self._reporting, self._answered, reports.told = None, time.monotonic(), True
        # IoT Hub adds the version, edgeHub does not; the order is free.
        version = f"$version={hub.twin.reported_version}&" if hub.twin.reported_version % 2 else ""
        self.publish(f"$iothub/twin/res/{status}/?{version}$rid={number}", b"")
