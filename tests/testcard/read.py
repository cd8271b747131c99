#!/usr/bin/env python3
"""Reads the test card's frame number from pictures: of any size, the card anywhere in them.

    tests/testcard/read.py FILE     prints one line a picture: the frame number, or '-'

`read(luma, width, height)` does it for one picture of 8-bit grey. FILE is whatever ffmpeg reads: a PNG
screenshot, a clip, an rtmp:// address.
"""

import subprocess
import sys

from card import CELL, CELLS, TIMING_HEIGHT, decode


def read(luma, width, height):
    """The frame number that `luma` (`width * height` bytes) shows, or None."""
    for y in range(height - 1, -1, -1):
        centres = timing(luma[y * width : (y + 1) * width])
        if centres is None:
            continue
        # The timing row is half a cell high, and this is its lowest line: the middle of the cells above
        # it is one cell's height further up. Cells are as high as wide, but a player may stretch them,
        # so measure the timing row itself.
        top = y
        while top > 0 and timing(luma[(top - 1) * width : top * width]) is not None:
            top -= 1
        cell = (y - top + 1) * CELL / TIMING_HEIGHT
        for middle in (round(top - cell / 2), round(top - cell / 3), round(top - cell * 2 / 3)):
            if 0 <= middle < height:
                line = luma[middle * width : (middle + 1) * width]
                number = decode([1 if line[x] > 127 else 0 for x in centres])
                if number is not None:
                    return number
    return None


def timing(line):
    """The middles of the cells, where this line of pixels crosses the timing row; else None."""
    edges, previous = [], False
    for x, value in enumerate(line):
        if (value > 127) != previous:
            previous = not previous
            edges.append(x)
    # White to black and back: 19 runs between 20 edges, and the last cell is black like what follows it.
    for first in range(len(edges) - CELLS + 1):
        runs = [edges[first + i + 1] - edges[first + i] for i in range(CELLS - 1)]
        size = sum(runs) / len(runs)
        if size >= 3 and line[edges[first]] > 127 and all(abs(run - size) <= max(2, size / 4) for run in runs):
            return [min(len(line) - 1, round(edges[first] + (i + 0.5) * size)) for i in range(CELLS)]
    return None


def pictures(source):
    """Each picture of `source` as (luma, width, height)."""
    probe = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=width,height"]
    size = subprocess.run(probe + ["-of", "csv=p=0", source], check=True, capture_output=True, text=True).stdout
    width, height = (int(number) for number in size.strip().split("\n")[0].rstrip(",").split(","))
    decoder = subprocess.Popen(
        ["ffmpeg", "-v", "error", "-i", source, "-map", "0:v:0", "-f", "rawvideo", "-pix_fmt", "gray", "-"],
        stdout=subprocess.PIPE,
    )
    while len(luma := decoder.stdout.read(width * height)) == width * height:
        yield luma, width, height
    if decoder.wait() != 0:
        sys.exit(decoder.returncode)


if __name__ == "__main__":
    for picture in pictures(sys.argv[1]):
        number = read(*picture)
        print("-" if number is None else number)
