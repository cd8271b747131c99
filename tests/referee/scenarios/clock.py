"""The wall clock, which is wrong at boot and jumps."""

import asyncio
import pathlib
import ssl

from bench import Failed, Skipped

from . import scenario

_LIBRARY = next(iter(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


def _clock(bench, seconds):
    """Sets the module's wall clock that many seconds ahead of this machine's; the environment that it needs."""
    if not _LIBRARY:
        raise Skipped("no libfaketime")
    clock = bench.folder / "clock"
    clock.write_text(f"{seconds:+}")
    return {
        "LD_PRELOAD": str(_LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def fast(rate):
    """The environment of a module for which time passes so many times as fast, so that minutes need not be waited for.

    What it does at a pace it does too soon for the referee: see `forget_paces`."""
    if not _LIBRARY:
        raise Skipped("no libfaketime")
    return {"LD_PRELOAD": str(_LIBRARY), "FAKETIME": f"+0 x{rate}"}


def one_connection(bench):
    """Fails where a module for which time passes fast has connected more often than once.

    It waits 20 s for the answer to a PINGREQ, by its own clock, and a busy machine may be later: that is no fault."""
    late = sum("no answer to PINGREQ" in line for line in bench.module.lines)
    if len(bench.hub.sessions) > 1 + late:
        raise Failed(f"{len(bench.hub.sessions)} connections, {late} of them left because this machine was late")


def forget_paces(bench):
    """Takes back what the referee noted of a module's paces."""
    for rule in ["report too soon", "more than one event a minute", "flapping state reported", "reconnect storm"]:
        bench.record.forget(rule)


@scenario()
async def a_clock_that_jumps_renews_the_token_in_place(bench):
    bench.desire({"cam": bench.flow("a")})
    await bench.start(**_clock(bench, 0))
    await bench.settled()
    session, tried = bench.hub.session, len(bench.hub.attempts)
    _clock(bench, 3500)
    bench.hub.clock = 3500
    await bench.until("a new token", lambda: len(bench.hub.attempts) > tried and bench.hub.ready, 100)
    if not session.disconnected:
        raise Failed("the renewal did not say DISCONNECT")
    await bench.settled()


@scenario()
async def a_clock_that_is_years_behind_at_boot_is_waited_for(bench):
    bench.desire({"cam": bench.flow("a")})
    await bench.start(**_clock(bench, -3650 * 86400))
    await bench.until("tried", lambda: len(bench.workload.requests) > 4)
    if any(session.connect for session in bench.hub.sessions):
        raise Failed("a certificate that is not valid yet was accepted")
    _clock(bench, 0)
    await bench.settled(timeout=60)
    # One may have been signed a moment before.
    bench.record.forget("token")


_AHEAD = 20 * 86400


async def _greet(port, authority):
    """A TLS handshake with a listener of the module, whose certificate must be one of the authority."""
    trust = ssl.create_default_context(cadata=authority)
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="gateway.local")
    writer.close()


@scenario()
async def a_clock_that_was_ahead_and_is_set_back_renews_token_and_certificate(bench):
    url = f"rtmps://127.0.0.1:{bench.ports[0]}/live/a"
    bench.desire({"tls": {"input": {"listen": url}, "outputs": {"viewers": {"serve": url}}}})
    bench.hub.clock = _AHEAD
    await bench.start(**_clock(bench, _AHEAD))
    await bench.settled()

    def issued():
        return sum(target.partition("?")[0].endswith("/certificate/server") for _, target in bench.workload.requests)

    await bench.until("a listener", lambda: any("listening for RTMP" in line for line in bench.module.lines))
    tried, certificates, authority = len(bench.hub.attempts), issued(), bench.workload.authority.root
    await _greet(bench.ports[0], authority)
    if issued() != certificates:
        raise Failed("a certificate was renewed before its time")
    _clock(bench, 0)
    bench.hub.clock = 0
    await _greet(bench.ports[0], authority)
    if issued() == certificates:
        raise Failed("the certificate of a clock that was wrong is kept")
    await bench.until("a new token", lambda: len(bench.hub.attempts) > tried and bench.hub.ready, 60)
    await bench.settled()
