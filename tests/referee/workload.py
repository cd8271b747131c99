"""The workload API, as strict as the real one and a little stricter."""

import asyncio
import base64
import json
import os
from urllib.parse import parse_qs, quote, unquote

import sas

VERSIONS = {"2018-06-28", "2019-01-30", "2019-10-22", "2019-11-05", "2020-07-07", "2021-12-07", "2022-08-03"}


class Workload:
    """One module's listener."""

    def __init__(self, record, identity, key, authority):
        self.record, self.identity, self.key, self.authority = record, identity, key, authority
        #: Signatures that were made and not yet used in a connection.
        self.unused = []
        self.requests = []
        self.bundle = authority.root
        #: Seconds before each answer; `hang` never answers; `status` answers with an error.
        self.delay, self.hang, self.status = 0, False, None
        #: Days that server certificates hold.
        self.days = 30
        self._server = None
        self._tasks = set()

    async def start(self, address):
        """Listens on a path or a port."""
        if isinstance(address, int):
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", address)
        else:
            self._server = await asyncio.start_unix_server(self._serve, str(address))
            os.chmod(address, 0o666)

    async def stop(self):
        if self._server:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(asyncio.current_task())
            writer.close()

    async def _one(self, reader, writer):
        line = await reader.readline()
        if not line:
            return False
        try:
            method, target, version = line.decode("ascii").rstrip("\r\n").split(" ")
        except ValueError:
            self.record.add("workload: request line", line)
            return False
        headers = {}
        while (line := (await reader.readline()).rstrip(b"\r\n")) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        body = await asyncio.wait_for(reader.readexactly(int(headers.get("content-length", 0))), 5)
        self.requests.append((method, target))
        self.record.check(version == "HTTP/1.1", "workload: version", version)
        self.record.check("host" in headers, "workload: no Host", target)
        self.record.check(not target.startswith("http"), "workload: absolute target", target)
        if self.delay:
            await asyncio.sleep(self.delay)
        while self.hang:
            await asyncio.sleep(0.2)
        status, answer = await self._answer(method, target, headers, body)
        if self.status:
            status, answer = self.status, {"message": "forbidden"}
        text = json.dumps(answer).encode()
        close = headers.get("connection", "").lower() == "close"
        writer.write(
            f"HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n"
            f"{'connection: close' if close else 'server: referee'}\r\n\r\n".encode()
            + text
        )
        await writer.drain()
        return not close

    def _refuse(self, status, message):
        self.record.add("workload: refused", f"{status} {message}")
        return status, {"message": message}

    async def _answer(self, method, target, headers, body):
        path, _, query = target.partition("?")
        version = parse_qs(query, strict_parsing=bool(query)).get("api-version", [None])
        if len(version) != 1 or version[0] not in VERSIONS:
            return self._refuse(400, f"invalid api-version: {target}")
        module = quote(self.identity.module, safe="")
        genid = quote(self.identity.generation, safe="")
        if path == "/trust-bundle":
            return (200, {"certificate": self.bundle}) if method == "GET" else self._refuse(400, "method")
        calls = {
            f"/modules/{module}/genid/{genid}/sign": self._sign,
            f"/modules/{module}/genid/{genid}/certificate/server": self._certificate,
        }
        call = calls.get(path)
        if not call:
            return self._refuse(404, f"{path}, expected one of {sorted(calls)}")
        kind = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if method != "POST" or kind != "application/json":
            return self._refuse(400, f"{method} with {kind}")
        try:
            return await call(json.loads(body))
        except (ValueError, KeyError, TypeError) as error:
            return self._refuse(422, f"{error!r} in {body!r}")

    async def _sign(self, body):
        if body["keyId"] != "primary" or body["algo"] != "HMACSHA256" or set(body) != {"keyId", "algo", "data"}:
            return self._refuse(422, f"sign: {body}")
        data = base64.b64decode(body["data"], validate=True)
        resource, _, expiry = data.partition(b"\n")
        self.record.check(b"/" not in resource and expiry.isdigit(), "workload: what is signed", data)
        digest = sas.sign(self.key, data)
        self.unused.append(digest)
        return 200, {"digest": digest}

    async def _certificate(self, body):
        name, expiration = body["commonName"], body["expiration"]
        self.record.check(expiration.endswith("Z") or "+" in expiration, "workload: expiration", expiration)
        key, chain = await asyncio.to_thread(self.authority.leaf, [unquote(name), "module"], self.days)
        return 201, {
            "privateKey": {"type": "key", "bytes": key},
            "certificate": chain,
            "expiration": "2030-01-01T00:00:00+00:00",
        }
