"""Reads playlists with m3u8 and prints, for each, what it found."""

import json
import sys

import m3u8

for path in sys.argv[1:]:
    with open(path) as file:
        playlist = m3u8.loads(file.read())
    parts = [part for segment in playlist.segments for part in segment.parts]
    finished = [segment for segment in playlist.segments if segment.uri]
    print(json.dumps({
        "sequence": playlist.media_sequence,
        "discontinuity": playlist.discontinuity_sequence,
        "target": playlist.target_duration,
        "segments": [[segment.uri, round(segment.duration * 100_000)] for segment in finished],
        "parts": len(parts),
    }))
