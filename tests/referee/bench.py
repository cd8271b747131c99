"""A module with everything around it, for one scenario."""

import asyncio
import os
import pathlib
import secrets
import shutil
import signal
import tempfile
import time
import traceback

import lag
from hub import Hub, Identity
from module import Module, free_port, send_signal
from record import Record
from workload import Workload

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTCARD = ROOT / "edge-config/testcard.mp4"
#: What `/status` shows beside the reported properties: the counters of `getStatus`.
COUNTERS = {
    "bytes",
    "frames",
    "framesDropped",
    "bitrateBps",
    "clients",
    "latencyMilliseconds",
    "instances",
    "next",
    "reconnects",
    "soundReanchored",
}


class Failed(Exception):
    """The scenario did not come to where it should."""


class Skipped(Exception):
    """Why the scenario cannot be played here."""


class Bench:
    """The parts, started; `check` at the end says that all is well."""

    def __init__(
        self,
        binaries,
        authority,
        module="rtmp-splitter",
        desired=None,
        identity=None,
        http_workload=False,
        environment=None,
    ):
        self.record, self.binaries, self.name = Record(), pathlib.Path(binaries), module
        self.identity = identity or Identity(module=module)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="referee-"))
        self.workload = Workload(self.record, self.identity, secrets.token_bytes(32), authority)
        names = [self.identity.gateway]
        if self.identity.gateway.replace(".", "").isdigit():
            names = ["IP:" + self.identity.gateway]
        self.hub = Hub(self.record, self.identity, self.workload, names, desired or {})
        self.hub_port = free_port()
        self.ports = [free_port() for _ in range(4)]
        self.address = free_port() if http_workload else self.folder / "workload.sock"
        self.extra = environment or {}
        self.module, self.modules, self._others = None, [], []

    def flow(self, path, port=0, **more):
        """A flow that listens and serves at this path."""
        url = f"rtmp://127.0.0.1:{self.ports[port]}/live/{path}"
        return {"input": {"listen": url}, "outputs": {"viewers": {"serve": url}}} | more

    def desire(self, flows, **more):
        """Desired properties before anything runs."""
        self.hub.twin.desired = {"flows": flows} | more

    def environment(self):
        me = self.identity
        uri = self.address if isinstance(self.address, int) else None
        return {
            "IOTEDGE_WORKLOADURI": f"http://127.0.0.1:{uri}" if uri else f"unix://{self.address}",
            "IOTEDGE_DEVICEID": me.device,
            "IOTEDGE_MODULEID": me.module,
            "IOTEDGE_MODULEGENERATIONID": me.generation,
            "IOTEDGE_IOTHUBHOSTNAME": me.hub,
            "IOTEDGE_GATEWAYHOSTNAME": me.gateway,
            "IOTEDGE_APIVERSION": "2022-08-03",
            "IOTEDGE_AUTHSCHEME": "sasToken",
            "AV_STATE_DIR": str(self.folder / "state"),
            "AV_HUB_PORT": str(self.hub_port),
            "AV_HOSTS": f"{me.gateway}=127.0.0.1",
        } | self.extra

    async def start(self, hub=True, workload=True, module=True, **environment):
        """Starts what is asked for."""
        if workload:
            await self.workload.start(self.address)
        if hub:
            await self.hub.start(self.hub_port)
        if module:
            await self.run(**environment)

    async def run(self, **environment):
        """Another process of the module."""
        self.hub.reports.process_started()
        self.hub.telemetry.process_started()
        self.module = Module(self.record, self.binaries / self.name, self.environment() | environment)
        self.modules.append(self.module)
        await self.module.start()
        return self.module

    async def program(self, *command):
        """A program beside the module, ended with the scenario."""
        if not shutil.which(command[0]):
            raise Skipped(f"no {command[0]}")
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        self._others.append(process)
        return process

    async def publish(self, name, port=0):
        """ffmpeg, which publishes the test card for ever."""
        url = f"rtmp://127.0.0.1:{self.ports[port]}/live/{name}"
        return await self.program(
            "ffmpeg", "-v", "error", "-re", "-stream_loop", "-1", "-i", str(TESTCARD), "-c", "copy", "-f", "flv", url
        )

    async def play(self, name, port=0):
        """ffmpeg, which plays."""
        url = f"rtmp://127.0.0.1:{self.ports[port]}/live/{name}"
        return await self.program("ffmpeg", "-v", "error", "-i", url, "-c", "copy", "-f", "null", "-")

    async def until(self, what, condition, timeout=30):
        """Waits until `condition()`, which may be a coroutine, holds."""
        end = time.monotonic() + timeout
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            if self.module and self.module.process.returncode is not None:
                raise Failed(f"{what}: the process ended with {self.module.process.returncode}")
            if time.monotonic() > end + lag.worst():
                raise Failed(f"{what}: not within {timeout} s")
            await asyncio.sleep(0.05)

    async def answers(self, path):
        """Whether the module answers 200."""
        return (await self.module.get(path))[0] == 200

    async def input_is(self, flow, state):
        """Whether a flow's input is in this state, as the module says."""
        return (await self.module.status()).get("flows", {}).get(flow, {}).get("input", {}).get("state") == state

    @property
    def reported(self):
        return self.hub.twin.reported

    def says(self, status="applied"):
        """Whether the module has reported the newest version, with this status."""
        config = self.reported.get("config", {})
        return config.get("desiredVersion") == self.hub.twin.version and config.get("status") == status

    async def settled(self, status="applied", timeout=30):
        """The module runs what the twin says, and the hub holds what the module says of itself."""
        try:
            await self.until(f"version {self.hub.twin.version} is {status}", lambda: self.says(status), timeout)
        except Failed as error:
            raise Failed(f"{error}; reported {self.reported.get('config')}") from error
        found = []

        async def same():
            found[:] = list(differences(self.reported, await self.module.status()))
            return not found or self.reported.get("config", {}).get("truncated")

        try:
            await self.until("reported properties are the module's own", same, 70)
        except Failed as error:
            raise Failed(f"{error}: {found[:5]}") from error
        if not self.reported["config"].get("truncated"):
            states = [flow["state"] for flow in self.reported["flows"].values()]
            told = self.reported["summary"]
            counts = {state: states.count(state) for state in ("running", "waiting", "retrying", "failed")}
            if not counts.items() <= told.items() or told["flows"] != len(states):
                raise Failed(f"summary {told} of {counts} in {len(states)} flows")
        if status == "applied" and not self.reported["config"].get("truncated"):
            flows = {name for name in self.hub.twin.desired.get("flows", {}) if not name.startswith("$")}
            if flows != set(self.reported.get("flows", {})):
                raise Failed(f"flows {flows} are desired, {set(self.reported.get('flows', {}))} run")

    async def stop(self):
        """SIGTERM; when it was connected, DISCONNECT is the last packet."""
        session = self.hub.session if not self.hub.hang else None
        await self.module.stop()
        if session and session.ended != "cut":
            for _ in range(20):
                if session.disconnected:
                    return
                await asyncio.sleep(0.05)
            self.record.add("no DISCONNECT at SIGTERM")

    async def close(self):
        """Ends everything, whatever happened."""
        for module in self.modules:
            await module.kill()
        for process in self._others:
            send_signal(process, signal.SIGKILL)
            await process.wait()
        await self.hub.stop()
        await self.workload.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def differences(reported, status, path=""):
    """Where `/status` and the reported properties say different things, counters apart."""
    for key in reported.keys() | status.keys():
        here = f"{path}.{key}"
        if key in COUNTERS and path:
            continue
        left, right = reported.get(key), status.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            yield from differences(left, right, here)
        # A counter that nobody listed is told from the start, not once it counts.
        elif left != right and (left or right or isinstance(right, int)):
            yield f"{here}: {left!r} reported, {right!r} in /status"


async def play(scenario, binaries, authority):
    """Plays a scenario: (faults, why it was skipped, seconds). No fault means that it passed."""
    began, faults, skipped = time.monotonic(), [], None
    bench = Bench(binaries, authority, **scenario.setup)
    try:
        await asyncio.wait_for(scenario.play(bench), 400)
        if bench.module and bench.module.process.returncode is None:
            await bench.stop()
    except Skipped as error:
        skipped = str(error)
    except Failed as error:
        faults.append(str(error))
    except Exception:
        faults.append(traceback.format_exc(limit=4))
    finally:
        await bench.close()
    faults += [f"{rule}: {detail}" for _, rule, detail in bench.record.violations]
    if faults and bench.module:
        faults += [
            "    " + line
            for module in bench.modules
            for line in module.lines[-int(os.environ.get("LINES_OF_LOG", 15)) :]
        ]
    return faults, skipped, time.monotonic() - began
