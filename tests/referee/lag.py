"""How late this process is: on a busy machine that is no fault of the module that it judges."""

import asyncio
import time

_EVERY = 0.1
#: Seconds that a delay is remembered: longer than any pace that is judged but a minute's.
_KEPT = 10

_woke = None
_late = []


async def watch():
    """Measures for ever how much later than asked the event loop wakes."""
    global _woke
    try:
        while True:
            _woke = time.monotonic()
            await asyncio.sleep(_EVERY)
            now = time.monotonic()
            _late[:] = [(at, late) for at, late in _late if now - at < _KEPT] + [(now, now - _woke - _EVERY)]
    finally:
        _woke = None


def worst():
    """The longest delay of the last seconds, and what there is of one that has not ended; 0 when nobody watches."""
    if _woke is None:
        return 0
    return max(0, time.monotonic() - _woke - _EVERY, *(late for _, late in _late))
