"""The layout of the test card: shared by the script that draws it and the function that reads it.

The frame number stands in a row of 20 square cells, white for 1 and black for 0, most significant bit
first: start marker `1 0`, 12 bits of frame number, 4 bits of check (the number's three nibbles, xored),
stop marker `0 1`. Under it a timing row alternates white and black, one cell each, so that a reader can
find the row in a picture of any size at any place.
"""

WIDTH, HEIGHT, FPS = 640, 360, 30
# 8 s are 240 pictures and exactly 375 AAC frames of 1024 samples at 48 kHz: the shortest whole number of
# seconds at which both tracks end together, so that a loop has no seam.
SECONDS = 8
FRAMES = SECONDS * FPS
SAMPLE_RATE = 48000
# The flash and the beep at the start of each second.
FLASH_FRAMES = 3

CELLS = 20
CELL = 28
ROW_X = (WIDTH - CELLS * CELL) // 2
ROW_Y = 272
TIMING_Y = ROW_Y + CELL
TIMING_HEIGHT = CELL // 2


def encode(number):
    """The 20 cells of a frame number, as a list of 0 and 1."""
    check = (number ^ number >> 4 ^ number >> 8) & 0xF
    word = number << 4 | check
    return [1, 0] + [word >> bit & 1 for bit in range(15, -1, -1)] + [0, 1]


def decode(cells):
    """The frame number of 20 cells, or None where a marker or the check does not fit."""
    if len(cells) != CELLS or cells[:2] != [1, 0] or cells[-2:] != [0, 1]:
        return None
    word = 0
    for cell in cells[2:-2]:
        word = word << 1 | cell
    number = word >> 4
    return number if encode(number) == cells else None
