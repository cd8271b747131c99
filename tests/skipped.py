"""What a test cannot do here: told, and counted by `tests/run`."""

import os
import sys
import unittest


def skip(what, why):
    """Prints `SKIPPED what: why`, and adds it to the file that $AV_SKIPPED names."""
    line = f"SKIPPED {what}: {why}"
    print(line, flush=True)
    if listed := os.environ.get("AV_SKIPPED"):
        with open(listed, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def main(what, **options):
    """unittest.main of the calling script; every case that was skipped is told as one of `what`."""
    result = unittest.main(exit=False, **options).result
    for case, why in result.skipped:
        skip(what, f"{case.id().replace('__main__.', '')}: {why}")
    sys.exit(not result.wasSuccessful())
