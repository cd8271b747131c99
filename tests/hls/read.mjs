// Reads playlists with m3u8-parser and hls-parser and prints, for each, what both found.
// Run in the folder of the packages: ES modules are looked for from there.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(`${process.cwd()}/`);
const { Parser } = require('m3u8-parser');
const hls = require('hls-parser');
// Strict, it asks every playlist for what low latency alone needs, and counts segments where time is meant.
hls.setOptions({ strictMode: false, silent: true });

for (const path of process.argv.slice(2)) {
    const text = readFileSync(path, 'utf8');
    const parser = new Parser();
    parser.push(text);
    parser.end();
    const one = parser.manifest;
    const finished = one.segments.filter((segment) => segment.uri);
    const open = one.preloadSegment?.parts ?? [];
    console.log(JSON.stringify({
        sequence: one.mediaSequence,
        discontinuity: one.discontinuitySequence,
        target: one.targetDuration,
        segments: finished.map((segment) => [segment.uri, Math.round(segment.duration * 100000)]),
        parts: finished.flatMap((segment) => segment.parts ?? []).length + open.length,
    }));
    const other = hls.parse(text);
    const whole = other.segments.filter((segment) => segment.uri);
    console.log(JSON.stringify({
        sequence: other.mediaSequenceBase,
        discontinuity: other.discontinuitySequenceBase,
        target: other.targetDuration,
        segments: whole.map((segment) => [segment.uri, Math.round(segment.duration * 100000)]),
        parts: other.segments.flatMap((segment) => segment.parts.filter((part) => !part.hint)).length,
    }));
}
