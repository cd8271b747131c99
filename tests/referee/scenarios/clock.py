"""The wall clock, which is wrong at boot and jumps."""

import pathlib

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
