#!/usr/bin/env python3
"""Plays edgeHub and the workload API to the modules, and keeps a record of what the real ones would not have liked.

    tests/referee/run.py [BINARIES] [WORD] [--at-once N]

BINARIES is the folder with the built modules; only scenarios with WORD in their name are played.
The last line is `N passed, N failed, N skipped`.
"""

import argparse
import asyncio
import pathlib
import sys

from bench import play
from certificates import Authority
from scenarios import ALL

ROOT = pathlib.Path(__file__).resolve().parents[2]


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binaries", nargs="?", default=ROOT / "target/debug")
    parser.add_argument("word", nargs="?", default="")
    parser.add_argument("--at-once", type=int, default=12)
    options = parser.parse_args()
    authority, gate = Authority(), asyncio.Semaphore(options.at_once)
    counts = {"passed": 0, "failed": 0, "skipped": 0}

    async def one(scenario):
        async with gate:
            faults, skipped, seconds = await play(scenario, options.binaries, authority)
        result = "failed" if faults else "skipped" if skipped else "passed"
        counts[result] += 1
        if result == "skipped":
            print(f"SKIPPED referee: {scenario.name}: {skipped}", flush=True)
        else:
            print(f"{result} {seconds:5.1f} s  {scenario.name}", flush=True)
        for fault in faults[:25]:
            print(f"    {fault}", flush=True)

    chosen = [scenario for scenario in ALL if options.word in scenario.name]
    await asyncio.gather(*map(one, sorted(chosen, key=lambda scenario: not scenario.long)))
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
