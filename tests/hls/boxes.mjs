// Reads an MP4 file with mp4box.js and prints its tracks: codec, samples, and ticks from the first one's start to the
// last one's end. Run in the folder of the package.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(`${process.cwd()}/`);
const { createFile } = require('mp4box');

const bytes = readFileSync(process.argv[2]);
const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
buffer.fileStart = 0;
const file = createFile();
let info;
file.onError = (error) => { throw new Error(error); };
file.onReady = (ready) => { info = ready; };
file.appendBuffer(buffer);
file.flush();
console.log(JSON.stringify(info.tracks.map((track) => {
    const samples = file.getTrackSamplesInfo(track.id);
    const [first, last] = [samples[0], samples.at(-1)];
    const holes = samples.filter((sample, at) => at > 0 && sample.dts !== samples[at - 1].dts + samples[at - 1].duration);
    const { type, codec, timescale } = track;
    return {
        type, codec, timescale, samples: samples.length, ticks: last.dts + last.duration - first.dts, holes: holes.length,
    };
})));
