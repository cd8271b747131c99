"""Where things are."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: The built modules; the first argument, if there is one.
BINARIES = pathlib.Path(sys.argv.pop(1)) if len(sys.argv) > 1 else ROOT / "target/debug"
