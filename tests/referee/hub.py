"""edgeHub for one module: who may connect, its twin, its methods, and the faults that a scenario asks for."""

import asyncio
import json
import time
import uuid
from dataclasses import dataclass
from urllib.parse import quote

import lag
import sas
from reports import Reports
from session import Session
from telemetry import Telemetry
from twin import Twin


#: Seconds more or less on the way from the module.
SLACK = 0.5


@dataclass
class Identity:
    hub: str = "referee.azure-devices.net"
    device: str = "gateway-1"
    module: str = "rtmp-splitter"
    generation: str = "637000000000000001"
    gateway: str = "gateway.local"


class Hub:
    """The server's state, which outlives connections."""

    def __init__(self, record, identity, workload, names, desired):
        self.record, self.identity, self.workload = record, identity, workload
        self.twin = Twin(desired)
        self.reports = Reports(record, self.twin)
        self.telemetry = Telemetry(record)
        self.names = names
        self.port = None
        self.session = None
        #: Every session, in order; each keeps what it saw.
        self.sessions = []
        #: How often TLS was begun; and when it came to an end that pleased the module.
        self.hellos, self.attempts = 0, []
        self.requests = set()
        #: When each token was first seen.
        self._tokens = {}
        #: The module has the key itself and signs without the workload API.
        self.local_key = False
        #: Seconds that the module's host is ahead of this machine.
        self.clock = 0
        # --- faults ---
        self.connack, self.connack_delay, self.present = 0, 0, None
        self.get_delay, self.get_answer = 0, None
        self.report_answer, self.hold_acks = None, False
        #: Stop reading and answering, and leave the socket open.
        self.hang = False
        #: Seconds for each twin request, one after the other, as while edgeHub waits for its cloud.
        self.serial = 0
        #: The disk is full: a message closes the connection.
        self.store_full = False
        #: Whether subscriptions are confirmed.
        self.suback = True
        #: A CONNECT that comes within these seconds of the handshake is lost, as by edgeHub 1.6.0.
        self.deaf = 0
        #: Cut the connection when this says so of a publish.
        self.cut_when = None
        self._server = None
        self._remembered, self._tasks = False, set()
        self._methods = {}

    async def start(self, port):
        """Listens, with a new leaf of a new intermediate each time."""
        self.port = port
        context = await asyncio.to_thread(self.workload.authority.context, self.names)
        context.sni_callback = self._server_name
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", port, ssl=context, ssl_handshake_timeout=20
        )

    def _server_name(self, _socket, name, _context):
        self.hellos += 1
        gateway = self.identity.gateway
        if not gateway.replace(".", "").isdigit():
            self.record.check(name == gateway, "server name", f"{name}, expected {gateway}")

    async def stop(self):
        if self._server:
            self._server.close()
            self._server = None
        self.cut()
        for task in list(self._tasks):
            task.cancel()

    def cut(self):
        """Closes the connection without a word."""
        for session in self.sessions:
            session.close("cut")

    async def _accept(self, reader, writer):
        self.attempts.append(time.monotonic())
        recent = [at for at in self.attempts if self.attempts[-1] - at < 10]
        self.record.check(len(recent) <= 10, "reconnect storm", f"{len(recent)} connections in 10 s")
        session = Session(self, reader, writer)
        self.sessions.append(session)
        self._tasks.add(task := asyncio.current_task())
        try:
            await session.run()
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)

    def judge(self, connect):
        """CONNACK's code for a CONNECT, as edgeHub finds it."""
        record, me = self.record, self.identity
        whole = f"{me.device}/{me.module}"
        right = record.check(connect.client_id == whole, "client id", connect.client_id)
        parts = (connect.user or "").split("/")
        user_fits = len(parts) == 4 and parts[:3] == [me.hub, me.device, me.module]
        query = dict(part.partition("=")[::2] for part in parts[-1].removeprefix("?").split("&"))
        user_fits = user_fits and parts[-1].startswith("?") and "api-version" in query
        right &= record.check(user_fits, "user name", connect.user)
        record.check(not set(query) - {"api-version", "DeviceClientType", "model-id"}, "user name", connect.user)
        agent = query.get("DeviceClientType", "-")
        record.check(agent and quote(agent, safe="%") == agent, "DeviceClientType", agent)
        for fault in sas.faults(connect.password, me, self.workload.key, time.time() + self.clock):
            record.add("token", fault)
            right = False
        if self.local_key:
            # Made anew, not kept: tokens that are made within one second end in the same one, and are alike.
            now = time.monotonic()
            age = now - self._tokens.setdefault(connect.password, now)
            record.check(age < 1 + SLACK + lag.worst(), "token used before", f"{age:.1f} s: {connect.password}")
        elif record.check(
            (digest := sas.digest_of(connect.password)) in self.workload.unused, "token used before", digest
        ):
            self.workload.unused.remove(digest)
        record.check(not connect.will, "will", "a will is not used")
        record.check(30 <= connect.keep_alive <= 60, "keep-alive", connect.keep_alive)
        return self.connack or (0 if right else 5)

    def enter(self, session, clean):
        """A session begins; an older one of the identity ends. Says session-present."""
        if self.session and self.session is not session:
            self.session.close("replaced")
        self.session = session
        present = self._remembered and not clean
        self._remembered = not clean
        return present if self.present is None else self.present

    def leave(self, session):
        if self.session is session:
            self.session = None
        self.reports.may_repeat |= session.in_doubt
        for number, (waiting, called) in list(self._methods.items()):
            if called is session and not waiting.done():
                waiting.set_result(None)
                del self._methods[number]

    @property
    def ready(self):
        """The module can be told things: it has asked for its twin on a connection that is up."""
        return self.session is not None and self.session.got_twin

    # --- the operator's side ---

    def change(self, patch, deliver=True):
        """Changes desired properties, and tells the module unless the patch is to be lost."""
        told = self.twin.change(patch)
        if deliver:
            self.push(told)
        return told

    def push(self, told):
        """Sends a patch of desired properties as it is."""
        if self.session:
            self.reports.changed = time.monotonic()
            self.session.push(told)

    async def call(self, name, payload=None, raw=None, timeout=15):
        """Calls a method: (status, body), or None when the connection went away."""
        session, number = self.session, str(uuid.uuid4())
        if session is None or not session.takes("$iothub/methods/POST/"):
            return 404, None
        body = raw if raw is not None else b"" if payload is None else json.dumps(payload).encode()
        waiting = asyncio.get_running_loop().create_future()
        self._methods[number] = (waiting, session)
        session.publish(f"$iothub/methods/POST/{name}/?$rid={number}", body)
        try:
            return await asyncio.wait_for(waiting, timeout)
        except TimeoutError:
            self.record.add("method not answered", f"{name} {body[:60]!r}")
            return 504, None

    def answered(self, session, number, status, payload):
        """A method's answer came."""
        record = self.record
        waiting, called = self._methods.pop(number, (None, None))
        if waiting is None or called is not session:
            record.add("method answer without a call", f"{number} {status}")
            return
        record.check(status in ("200", "202", "400", "404", "409", "500"), "method status", status)
        record.check(len(payload) <= 120 * 1024, "method answer too large", len(payload))
        try:
            body = json.loads(payload.decode())
        except ValueError as error:
            record.add("method answer is not JSON", f"{error}: {payload[:80]!r}")
            body = None
        if not waiting.done():
            waiting.set_result((int(status) if status.isdigit() else 0, body))
