// One viewer of a camera whose pictures come seldom, unevenly and not at all: `slow.mjs HLS_GATEWAY PAGE SECONDS`. The stream
// is there already. Prints how long it took to join, how long the picture stood still at most, and how far behind live it was.
import assert from "node:assert/strict";
import { chromium, end, open, quantile, until } from "./harness.mjs";

const [, , , web, seconds] = process.argv;
/** A page that has lost its way stands until it begins again, after 10 s, or up to the next key frame, after 20 s; one that
 * joins without a key frame waits as long. No machine is so busy. */
const MOST = 5000;

async function slow() {
  await until("the stream is live", () => fetch(`${web}/live/cam/index.m3u8`).then(({ ok }) => ok, () => false), 60);
  const browser = await chromium(), opened = Date.now();
  const page = await open(browser, `${web}/`);
  await until("the page plays", () => page.evaluate(() => globalThis.live?.state === "playing"));
  const joined = Date.now() - opened;
  const { stood, behind, stalls, when } = await page.evaluate((seconds) => new Promise((done) => {
    const began = performance.now(), behind = [], events = [], { video, stalls } = live;
    const trigger = Hls.prototype.trigger;
    Hls.prototype.trigger = function told(name, data) {
      const { sn, level } = data?.frag ?? {}, { index } = data?.part ?? {};
      const what = [data?.details, sn !== undefined && `${level}:${sn}${index === undefined ? "" : `.${index}`}`].filter(Boolean).join(" ");
      events.push(`${Math.round(performance.now() - began)} ${name} ${what}`);
      events.splice(0, events.length - 40);
      return trigger.call(this, name, data);
    };
    const ahead = () => [...Array(video.buffered.length).keys()].map((at) => `${(video.buffered.start(at) - video.currentTime).toFixed(2)} to ${(video.buffered.end(at) - video.currentTime).toFixed(2)}`).join(", ");
    let last = { time: video.currentTime, at: began }, stood = 0, when = {};
    const looking = setInterval(() => {
      const now = performance.now();
      if (video.currentTime !== last.time) last = { time: video.currentTime, at: now };
      if (now - last.at > stood) {
        stood = now - last.at;
        // What there was when it came to stand, and what has happened since.
        if (when.at !== last.at) when = { at: last.at, ahead: ahead(), rate: video.playbackRate, latency: live.latency };
        when.events = [...events];
      }
      behind.push(live.latency);
      if (now - began < seconds * 1000) return;
      clearInterval(looking);
      done({ stood, behind, stalls: live.stalls - stalls, when });
    }, 50);
  }), Number(seconds));
  const figure = (of) => quantile(behind, of).toFixed(2);
  console.log(`joined after ${joined} ms; ${seconds} s: stood for ${Math.round(stood)} ms at most, ${stalls} stalls; ${figure(0.5)} s behind live, p95 ${figure(0.95)} s`);
  if (stood > 300) {
    const { ahead, rate, latency, events } = when;
    console.log(`the longest: buffered from ${ahead} s on, speed ${rate}, ${latency?.toFixed(2)} s behind live; ms and events of hls.js:\n${events.join("\n")}`);
  }
  assert.ok(joined < MOST, `it took ${joined} ms to join`);
  assert.ok(stood < MOST, `the picture stood for ${Math.round(stood)} ms`);
  assert.deepEqual(page.errors, []);
  assert.equal(page.loads, 1);
}

await slow().finally(end);
