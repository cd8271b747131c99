"""The referee can say no: a client that does everything wrong is caught at each of it."""

import asyncio
import base64
import json
import pathlib
import shutil
import ssl
import struct
import sys
import tempfile
import time
import unittest
from urllib.parse import quote

import lag
import packet as mqtt
import sas
import shape
from certificates import Authority
from bench import differences
from hub import Hub, Identity
from module import free_port
from record import Record
from twin import Twin, measure, merge, refusals, unchanged
from workload import Workload

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import skipped  # noqa: E402

ME = Identity()
USER = f"{ME.hub}/{ME.device}/{ME.module}/?api-version=2021-04-12&DeviceClientType=bad%2Fclient"
EVENTS = f"devices/{ME.device}/modules/{ME.module}/messages/events/"
GOOD = "$.on=events&$.ct=application%2Fjson&$.ce=utf-8"
FILTERS = ["$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#", "$iothub/methods/POST/#"]


def text(value):
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def connect(client_id=f"{ME.device}/{ME.module}", user=USER, password="", keep_alive=60, flags=0xC2):
    body = (
        text("MQTT") + bytes([4, flags]) + struct.pack(">H", keep_alive) + text(client_id) + text(user) + text(password)
    )
    return mqtt.encode(mqtt.CONNECT, body)


def subscribe(*filters, number=1):
    body = struct.pack(">H", number) + b"".join(text(name) + b"\1" for name in filters)
    return mqtt.encode(mqtt.SUBSCRIBE, body, 2)


class Referee(unittest.IsolatedAsyncioTestCase):
    """A hub with a client that is written by hand."""

    @classmethod
    def setUpClass(cls):
        if not shutil.which("openssl"):
            raise unittest.SkipTest("no openssl")
        cls.authority = Authority()

    async def asyncSetUp(self):
        self.record, self.tokens = Record(), 0
        self.workload = Workload(self.record, ME, b"key", self.authority)
        self.hub = Hub(self.record, ME, self.workload, [ME.gateway], {})
        await self.hub.start(free_port())
        self.addAsyncCleanup(self.hub.stop)

    def token(self, seconds=3600, sr=None):
        sr = sr or quote(f"{ME.hub}/devices/{ME.device}/modules/{ME.module}", safe="")
        self.tokens += 1  # no two alike
        se = int(time.time()) + seconds + self.tokens
        digest = sas.sign(b"key", f"{sr}\n{se}".encode())
        self.workload.unused.append(digest)
        return f"SharedAccessSignature sr={sr}&sig={quote(digest, safe='')}&se={se}"

    async def send(self, *packets, login=None, name=ME.gateway):
        """Connects and sends all; the rules that were broken, once the hub has read everything or closed."""
        before = len(self.hub.sessions)
        context = ssl.create_default_context(cadata=self.authority.root)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.hub.port, ssl=context, server_hostname=name)
        writer.write((login or connect(password=self.token())) + b"".join(packets))
        writer.write(mqtt.encode(mqtt.DISCONNECT))
        session = (await self.until(lambda: self.hub.sessions[before:]))[0]
        await self.until(lambda: session.disconnected or session.ended)
        writer.close()
        await self.until(lambda: session.ended)
        return self.record.rules()

    async def until(self, condition):
        end = time.monotonic() + 10
        while not (found := condition()):
            self.assertLess(time.monotonic(), end)
            await asyncio.sleep(0.01)
        return found

    async def test_a_good_client_has_an_empty_record(self):
        body = json.dumps({"event": "moduleStarted", "at": "2026-01-01T00:00:00Z", "count": 1}).encode()
        # Its first report had its answer on a connection before.
        self.hub.reports.told = True
        found = await self.send(
            subscribe(*FILTERS), mqtt.publish("$iothub/twin/GET/?$rid=1", b""), mqtt.publish(EVENTS + GOOD, body, 1, 1)
        )
        self.assertEqual(found, [])

    async def test_a_bad_login_is_caught(self):
        good = self.token()
        for login, rule in [
            (connect(client_id="gateway-1", password=good), "client id"),
            (connect(user=USER.replace("%2F", "/"), password=self.token()), "user name"),
            (connect(user=USER.replace("api-version", "version"), password=self.token()), "user name"),
            (connect(password=good), "token used before"),
            (connect(password=self.token(-50)), "token"),
            (connect(password=self.token(sr=f"{ME.hub}/devices/{ME.device}")), "token"),
            (connect(password=self.token().replace("%2B", "+").replace("%3D", "=")), "token"),
            (connect(password="secret"), "token"),
            (connect(password=self.token(), keep_alive=0), "keep-alive"),
            (connect(password=self.token(), keep_alive=1200), "keep-alive"),
            (mqtt.encode(mqtt.PINGREQ), "no CONNECT first"),
            (b"\x10\x03abc", "connection closed: malformed"),
        ]:
            with self.subTest(rule=rule):
                self.record.violations.clear()
                self.assertIn(rule, await self.send(login=login))

    async def test_tokens_of_one_second_are_alike_and_an_older_one_is_caught(self):
        self.hub.local_key = True
        login = connect(password=self.token())
        self.assertEqual(await self.send(login=login), [])
        self.assertEqual(await self.send(login=login), [])
        self.hub._tokens = {token: seen - 2 for token, seen in self.hub._tokens.items()}
        self.assertEqual(await self.send(login=login), ["token used before"])

    async def test_a_wrong_server_name_is_caught(self):
        self.hub.identity = Identity(gateway="other.local")
        self.assertIn("server name", await self.send())

    async def test_bad_publishes_are_caught(self):
        subscribed = subscribe(*FILTERS)
        report = "$iothub/twin/PATCH/properties/reported/?$rid="
        for packets, rule in [
            ([mqtt.publish("$iothub/twin/GET/?$rid=2", b"")], "twin request before its subscription"),
            ([subscribed, mqtt.publish("$iothub/twin/GET/", b"")], "twin request without $rid"),
            ([subscribed, mqtt.publish("$iothub/twin/GET/?$rid=3", b"") * 2], "$rid used again"),
            ([subscribed, mqtt.publish("$iothub/twin/get/?$rid=4", b"")], "connection closed: topic"),
            ([mqtt.publish("my/topic", b"")], "dropped: topic"),
            ([subscribed, mqtt.publish(EVENTS + GOOD, b"{}", 1, 1)], "telemetry before the twin"),
            ([mqtt.publish(EVENTS + GOOD, b"{}", 2, 1)], "connection closed: QoS 2"),
            ([mqtt.publish(EVENTS + GOOD, b"{}", 1, 1, 1)], "retain"),
            ([mqtt.publish(EVENTS + GOOD, b"{", 1, 1)], "message is not JSON"),
            ([mqtt.publish(EVENTS + "$.on=events", b"{}", 1, 1)], "content type"),
            ([mqtt.publish(EVENTS + GOOD + "&a=b/c", b"{}", 1, 1)], "property bag"),
            ([mqtt.publish(EVENTS + GOOD + "&a=b=c", b"{}", 1, 1)], "property bag"),
            ([mqtt.publish(EVENTS + GOOD + "&deviceId=x", b"{}", 1, 1)], "property bag"),
            ([mqtt.publish(EVENTS + GOOD, b" " * 250_000, 1, 1)], "message too large"),
            ([mqtt.publish(EVENTS + GOOD, b" " * 262_144, 1, 1)], "connection closed: malformed"),
            ([subscribe("#")], "subscription"),
            ([subscribed, mqtt.publish(report + "5", b'{"a.b":1}')], "report refused"),
            (
                [subscribed, mqtt.publish(report + "6", b'{"a":1}'), mqtt.publish(report + "7", b'{"b":1}')],
                "report too soon",
            ),
            ([subscribed, mqtt.publish("$iothub/methods/res/200/?$rid=x", b"{}")], "method answer without a call"),
            ([mqtt.encode(mqtt.PUBACK, b"\0\1")], "PUBACK for nothing"),
            ([mqtt.encode(mqtt.DISCONNECT), mqtt.encode(mqtt.PINGREQ)], "packet after DISCONNECT"),
        ]:
            with self.subTest(rule=rule):
                self.record.violations.clear()
                self.hub.reports.changed = -1e9
                self.assertIn(rule, await self.send(*packets))

    async def test_what_a_busy_machine_delays_is_no_fault_of_the_module(self):
        watching = asyncio.ensure_future(lag.watch())
        await asyncio.sleep(0)
        time.sleep(0.5)  # as if nothing of this process ran
        late = lag.worst()
        self.assertGreaterEqual(late, 0.4)
        reports = self.hub.reports
        reports.take(b'{"a":1}')
        reports._last -= 4.6
        self.record.violations.clear()
        reports.take(b'{"a":2}')
        self.assertNotIn("report too soon", self.record.rules())
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        self.assertEqual(lag.worst(), 0)
        reports._last -= 4.6
        reports.take(b'{"a":3}')
        self.assertIn("report too soon", self.record.rules())

    async def test_what_is_held_back_or_shown_is_caught(self):
        self.hub.hold_acks = True
        many = [mqtt.publish(EVENTS + GOOD, b"{}", 1, number) for number in range(1, 18)]
        self.record.secrets.append("hunter2")
        found = await self.send(*many, mqtt.publish(EVENTS + GOOD, b'{"a":"hunter2"}', 1, 5))
        self.assertLessEqual({"more than 16 in flight", "packet identifier in use", "secret shown"}, set(found))

    async def test_two_reports_in_flight_and_held_values_are_caught(self):
        self.hub.report_answer = lambda payload: "lost"
        report = "$iothub/twin/PATCH/properties/reported/?$rid="
        found = await self.send(
            subscribe(*FILTERS), mqtt.publish(report + "a", b'{"a":1}'), mqtt.publish(report + "b", b'{"a":2}')
        )
        self.assertIn("two reports in flight", found)
        self.hub.report_answer = None
        self.hub.reports.may_repeat = False
        self.hub.twin.reported = {"a": 1}
        self.assertIn(
            "report says what is held", await self.send(subscribe(*FILTERS), mqtt.publish(report + "c", b'{"a":1}'))
        )

    async def test_bad_requests_to_the_workload_api_are_caught(self):
        path = f"/modules/{ME.module}/genid/{ME.generation}/sign"
        sign = json.dumps({"keyId": "primary", "algo": "HMACSHA256", "data": base64.b64encode(b"a\n1").decode()})
        with tempfile.TemporaryDirectory() as folder:
            socket = pathlib.Path(folder) / "w.sock"
            await self.workload.start(socket)
            self.addAsyncCleanup(self.workload.stop)
            for request, status in [
                (("GET", "/trust-bundle?api-version=2022-08-03", "", ""), 200),
                (("POST", f"{path}?api-version=2022-08-03", "application/json", sign), 200),
                (("GET", "/trust-bundle", "", ""), 400),
                (("GET", "/trust-bundle?api-version=2021-05-11", "", ""), 400),
                (("POST", f"{path}?api-version=2022-08-03", "text/plain", sign), 400),
                (("POST", f"{path}?api-version=2022-08-03", "application/json", "{}"), 422),
                (("POST", "/modules/other/genid/1/sign?api-version=2022-08-03", "application/json", sign), 404),
            ]:
                self.record.violations.clear()
                method, target, kind, body = request
                reader, writer = await asyncio.open_unix_connection(str(socket))
                writer.write(
                    f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind or 'application/json'}\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
                )
                self.assertEqual(int((await reader.readline()).split()[1]), status, request)
                self.assertEqual(bool(self.record.violations), status != 200, request)
                writer.close()


class Rules(unittest.TestCase):
    """What is judged without a connection."""

    def test_status_shows_what_is_reported_and_counters_that_are_known(self):
        reported = {"flows": {"cam": {"state": "running", "input": {"state": "receiving"}}}}
        status = {"flows": {"cam": {"state": "running", "input": {"state": "receiving", "soundReanchored": 14}}}}
        self.assertEqual(list(differences(reported, status)), [])
        status["flows"]["cam"]["input"]["unheardOf"] = 0
        status["flows"]["cam"]["state"] = "waiting"
        found = sorted(fault.split(":")[0] for fault in differences(reported, status))
        self.assertEqual(found, [".flows.cam.input.unheardOf", ".flows.cam.state"])

    def test_reports_that_edgehub_refuses(self):
        deep = b'{"a":' * 12 + b"1" + b"}" * 12
        for payload in [
            b"[]",
            b"{",
            b'{"a":NaN}',
            b'{"a":1,"a":2}',
            b'{"$version":1}',
            b'{"a b":1}',
            b'{"x":{"a.b":1}}',
            b'{"a":[null]}',
            b'{"a":[{"b":null}]}',
            b'{"a":4503599627370496}',
            deep,
            b'{"a":"' + b"x" * 4097 + b'"}',
            b'{"a":["' + b'","'.join([b"y" * 4000] * 9) + b'"]}',
        ]:
            self.assertTrue(refusals(payload)[1], payload[:40])
        self.assertEqual(refusals(b'{"a":null,"b":[1.5,true],"c":{"d":4503599627370495}}')[1], [])

    def test_patches_and_measures(self):
        twin = Twin({"a": {"b": 1}})
        self.assertEqual(twin.change({"a": {"b": None, "c": [1]}}), {"a": {"b": None, "c": [1]}, "$version": 2})
        self.assertEqual(twin.desired, {"a": {"c": [1]}})
        self.assertEqual(list(unchanged({"a": {"b": 1, "c": 2}, "d": None}, {"a": {"b": 1}})), ["/a/b", "/d"])
        self.assertEqual(measure({"ab": ["é", 1, True]}), 2 + 2 + 8 + 4)
        self.assertEqual(merge({"a": 1}, {"a": {"b": None}}), {"a": {}})

    def test_shapes(self):
        self.assertTrue(list(shape.reported({})))
        self.assertTrue(any("colour" in fault for fault in shape.reported({"colour": 1})))
        for config, complete in [({"truncated": True}, True), ({"desiredVersion": 1}, False)]:
            missing = any("config.status" in fault for fault in shape.reported({"config": config}))
            self.assertEqual(missing, not complete, config)
        self.assertIsNone(shape.log_line("<6> 2026-01-01 00:00:00.000 +00:00 [INF] - text"))
        for line in [
            "text",
            "<6> 2026-01-01 00:00:00.00 +00:00 [INF] - text",
            "<6> 2026-01-01 00:00:00.000 Z [INF] - text",
            "<3> 2026-01-01 00:00:00.000 +00:00 [INF] - text",
        ]:
            self.assertTrue(shape.log_line(line), line)
        self.assertTrue(list(shape.event({"event": "other", "at": "now", "count": 0})))


if __name__ == "__main__":
    skipped.main("referee itself")
