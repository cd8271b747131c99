"""A module's process: its environment, its log, its HTTP, its end."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request

import lag
import shape

_SERIES = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([0-9.eE+-]+|NaN|\+Inf)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"(?:,|$)')


#: Below Linux's range for outgoing connections (32768 and up), so that no client's socket takes a port between its
#: being found and its being listened on; processes that run at the same time start at different places.
_FIRST, _LAST = 12_000, 32_000
_ports = iter([_FIRST + (os.getpid() * 97 + number) % (_LAST - _FIRST) for number in range(_LAST - _FIRST)])


def free_port():
    """A port on 127.0.0.1 that nothing listens on; never the same twice."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"no free port between {_FIRST} and {_LAST}")


def send_signal(process, number):
    """A signal to a process of asyncio's, unless it has ended.

    `Process.send_signal` and `kill` ask first whether the process still runs, and so take its exit code from asyncio,
    which then says `Unknown child process` and that the code is 255."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


class Module:
    """One run of a binary."""

    def __init__(self, record, binary, environment, arguments=()):
        self.record, self.binary, self.arguments = record, binary, arguments
        self.metrics = free_port()
        self.environment = {"PATH": os.environ["PATH"], "AV_METRICS_ADDRESS": f"127.0.0.1:{self.metrics}"} | environment
        self.lines = []
        self.process = None
        self.started = None
        self._reading = None

    async def start(self):
        self.started = time.monotonic()
        self.process = await asyncio.create_subprocess_exec(
            self.binary,
            *self.arguments,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        self._reading = [
            asyncio.ensure_future(self._read(stream, log))
            for stream, log in [(self.process.stderr, True), (self.process.stdout, False)]
        ]

    async def _read(self, stream, log):
        while line := (await stream.readline()).decode("utf-8", "replace").rstrip("\n"):
            self.lines.append(line)
            self.record.scan("log", line)
            fault = shape.log_line(line) if log else f"on stdout: {line}"
            if fault:
                self.record.add("log line", fault)

    async def ended(self, timeout):
        """The exit code, when it comes in time."""
        code = await asyncio.wait_for(self.process.wait(), timeout)
        await asyncio.gather(*self._reading)
        return code

    async def stop(self):
        """SIGTERM, as a container gets it: exit code 0 within 8 s."""
        if self.process.returncode is not None:
            self.record.add("process ended", f"{self.process.returncode}: {self.lines[-3:]}")
            return
        began = time.monotonic()
        send_signal(self.process, signal.SIGTERM)
        try:
            code = await self.ended(30)
        except TimeoutError:
            self.record.add("SIGTERM", "still running after 30 s")
            await self.kill()
            return
        took = time.monotonic() - began
        self.record.check(took < 8 + lag.worst(), "SIGTERM", f"took {took:.1f} s")
        self.record.check(code == 0, "SIGTERM", f"exit code {code}")

    async def kill(self):
        if self.process and self.process.returncode is None:
            send_signal(self.process, signal.SIGKILL)
            await self.process.wait()

    async def get(self, path):
        """(status, text) of a request to the module."""

        def ask():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}{path}", timeout=10) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()
            except OSError as error:
                return 0, str(error)

        status, text = await asyncio.to_thread(ask)
        self.record.scan(path, text)
        return status, text

    async def status(self):
        """`/status`, or nothing while it does not answer."""
        status, text = await self.get("/status")
        return json.loads(text) if status == 200 else {}

    async def series(self):
        """All series of `/metrics`: (name, labels, value)."""
        status, text = await self.get("/metrics")
        found = []
        if not self.record.check(status == 200, "metrics", status):
            return found
        for line in text.splitlines():
            if not line or line.startswith("#"):
                continue
            series = _SERIES.fullmatch(line)
            if not self.record.check(series, "metrics line", line):
                continue
            labels = dict(_LABEL.findall(series[2] or ""))
            self.record.check(_LABEL.sub("", series[2] or "") == "", "metrics labels", line)
            found.append((series[1], labels, float(series[3])))
        return found

    async def value(self, name, **labels):
        """One series' value, or None."""
        for found, have, value in await self.series():
            if found == name and labels.items() <= have.items():
                return value
        return None

    async def healthcheck(self, *arguments):
        """The exit code of the subcommand."""
        probe = await asyncio.create_subprocess_exec(
            self.binary,
            "healthcheck",
            *arguments,
            env=self.environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await asyncio.wait_for(probe.wait(), 15)
