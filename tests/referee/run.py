#!/usr/bin/env python3
"""Plays edgeHub and the workload API to the modules, and keeps a record of what the real ones would not have liked.

    tests/referee/run.py [BINARIES] [WORD] [--long] [--at-once N]

BINARIES is the folder with the built modules; only scenarios with WORD in their name are played. Those that take more
than a minute are skipped without --long or $AV_LONG. The last line is `N passed, N failed, N skipped`.
"""

import argparse
import asyncio
import concurrent.futures
import os
import pathlib
import shutil
import sys

import lag
from bench import play
from certificates import Authority
from scenarios import ALL

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))
from skipped import skip  # noqa: E402


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binaries", nargs="?", default=ROOT / "target/debug")
    parser.add_argument("word", nargs="?", default="")
    parser.add_argument("--long", action="store_true", default="AV_LONG" in os.environ)
    parser.add_argument("--at-once", type=int, default=12)
    options = parser.parse_args()
    authority = Authority() if shutil.which("openssl") else None
    gate = asyncio.Semaphore(options.at_once)
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    # Certificates are waited for in threads, which must not hold up the questions of the other scenarios.
    asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(64))
    watching = asyncio.ensure_future(lag.watch())

    async def one(scenario):
        if authority is None:
            faults, skipped, seconds = [], "no openssl", 0
        elif scenario.long and not options.long:
            faults, skipped, seconds = [], "long", 0
        else:
            async with gate:
                faults, skipped, seconds = await play(scenario, options.binaries, authority)
        result = "failed" if faults else "skipped" if skipped else "passed"
        counts[result] += 1
        if result == "skipped":
            skip(f"referee: {scenario.name}", skipped)
        else:
            print(f"{result} {seconds:5.1f} s  {scenario.name}", flush=True)
        for fault in faults[:25]:
            print(f"    {fault}", flush=True)

    chosen = [scenario for scenario in ALL if options.word in scenario.name]
    await asyncio.gather(*map(one, sorted(chosen, key=lambda scenario: -scenario.seconds)))
    watching.cancel()
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    return 1 if counts["failed"] or not chosen else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
