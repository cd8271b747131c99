#!/usr/bin/env python3
"""Makes edge-config/testcard.mp4: every picture and sample is drawn here, ffmpeg only encodes.

    tests/testcard/make.py [FILE]

Pictures: colour bars, a running clock (seconds.frames), a bar that sweeps once a second, the frame number
as a row of blocks (see card.py), and a white flash at the start of each second, with a 1 kHz beep of the
same length. H.264 High with two B-frames and a closed GOP of 2 s; AAC-LC, 48 kHz, stereo; index in front.
"""

import math
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from card import *

# Limited-range BT.601: (Y, Cb, Cr).
BLACK, WHITE, GREY = (16, 128, 128), (235, 128, 128), (60, 128, 128)
BARS = [(180, 128, 128), (162, 44, 142), (131, 156, 44), (112, 72, 58), (84, 184, 198), (65, 100, 212), (35, 212, 114)]

# 5 x 7 dots a glyph, one number a line.
GLYPHS = {
    "0": (14, 17, 19, 21, 25, 17, 14),
    "1": (4, 12, 4, 4, 4, 4, 14),
    "2": (14, 17, 1, 2, 4, 8, 31),
    "3": (31, 2, 4, 2, 1, 17, 14),
    "4": (2, 6, 10, 18, 31, 2, 2),
    "5": (31, 16, 30, 1, 1, 17, 14),
    "6": (6, 8, 16, 30, 17, 17, 14),
    "7": (31, 1, 2, 4, 8, 8, 8),
    "8": (14, 17, 17, 14, 17, 17, 14),
    "9": (14, 17, 17, 15, 1, 2, 12),
    ".": (0, 0, 0, 0, 0, 12, 12),
}
DOT = 14


class Picture:
    """One 4:2:0 picture. Coordinates and sizes are even."""

    def __init__(self):
        self.y = bytearray(WIDTH * HEIGHT)
        self.cb = bytearray(WIDTH * HEIGHT // 4)
        self.cr = bytearray(WIDTH * HEIGHT // 4)

    def fill(self, x, y, width, height, colour):
        for plane, shift, value in ((self.y, 0, colour[0]), (self.cb, 1, colour[1]), (self.cr, 1, colour[2])):
            stride, left, right = WIDTH >> shift, x >> shift, (x + width) >> shift
            line = bytes([value]) * (right - left)
            for row in range(y >> shift, (y + height) >> shift):
                plane[row * stride + left : row * stride + right] = line

    def text(self, x, y, text):
        for glyph in text:
            for row, dots in enumerate(GLYPHS[glyph]):
                for column in range(5):
                    if dots >> (4 - column) & 1:
                        self.fill(x + column * DOT, y + row * DOT, DOT, DOT, WHITE)
            x += 6 * DOT

    def bytes(self):
        return bytes(self.y + self.cb + self.cr)


def draw(number):
    second, frame = divmod(number, FPS)
    picture = Picture()
    edges = [i * WIDTH // len(BARS) & ~1 for i in range(len(BARS) + 1)]
    for bar, colour in enumerate(BARS):
        left, right = edges[bar], edges[bar + 1]
        picture.fill(left, 0, right - left, HEIGHT, WHITE if frame < FLASH_FRAMES else colour)

    picture.fill(80, 60, 480, 130, BLACK)
    picture.text(118, 76, f"{second:02}.{frame:02}")

    picture.fill(0, 214, WIDTH, 20, GREY)
    picture.fill(frame * WIDTH // FPS & ~1, 214, 20, 20, WHITE)

    picture.fill(0, ROW_Y - 16, WIDTH, 2 * CELL + 32, BLACK)
    for cell, value in enumerate(encode(number)):
        x = ROW_X + cell * CELL
        picture.fill(x, ROW_Y, CELL, CELL, WHITE if value else BLACK)
        picture.fill(x, TIMING_Y, CELL, TIMING_HEIGHT, BLACK if cell % 2 else WHITE)
    return picture.bytes()


def sound():
    """All samples, interleaved 16-bit stereo. The beep fades over 2 ms, so that it does not click."""
    beep, fade = FLASH_FRAMES * SAMPLE_RATE // FPS, SAMPLE_RATE // 500
    second = []
    for i in range(SAMPLE_RATE):
        gain = min(1, i / fade, (beep - i) / fade) if i < beep else 0
        second.append(round(gain * 9000 * math.sin(2 * math.pi * 1000 * i / SAMPLE_RATE)))
    return b"".join(struct.pack("<hh", sample, sample) for sample in second) * SECONDS


def main():
    repository = Path(__file__).resolve().parents[2]
    target = sys.argv[1] if len(sys.argv) > 1 else repository / "edge-config" / "testcard.mp4"
    with tempfile.NamedTemporaryFile(suffix=".pcm") as pcm:
        pcm.write(sound())
        pcm.flush()
        ffmpeg = subprocess.Popen(
            ["ffmpeg", "-hide_banner", "-loglevel", "error", "-y"]
            + ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", "-"]
            + ["-f", "s16le", "-ar", str(SAMPLE_RATE), "-ac", "2", "-i", pcm.name]
            + ["-map", "0:v", "-map", "1:a", "-c:v", "libx264", "-profile:v", "high", "-preset", "veryslow"]
            # One thread: the same file on every machine. A fixed GOP: no sync frame at a flash.
            + ["-x264-params", f"threads=1:bframes=2:keyint={2 * FPS}:min-keyint={2 * FPS}:scenecut=0:open-gop=0"]
            + ["-crf", "23", "-colorspace", "smpte170m", "-color_primaries", "smpte170m", "-color_trc", "smpte170m"]
            + ["-c:a", "aac", "-b:a", "96k", "-video_track_timescale", "30000", "-movflags", "+faststart"]
            + ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"]
            + [str(target)],
            stdin=subprocess.PIPE,
        )
        for number in range(FRAMES):
            ffmpeg.stdin.write(draw(number))
        ffmpeg.stdin.close()
        sys.exit(ffmpeg.wait())


if __name__ == "__main__":
    main()
