// One viewer of the player page: `watch.mjs HLS_GATEWAY SECONDS`. Prints how soon it has a picture, and how old pictures
// were, at first and over that time.
import assert from "node:assert/strict";
import { ages, chromium, end, gateway, open, plays, Publisher, quantile, read, until, watched } from "./harness.mjs";

const [, , binary, seconds] = process.argv;
/** A page that keeps no latency is three segments behind; no machine is so busy. */
const SANE = 5000;

const figures = (seen) => `${quantile(seen, 0.5)} ms old, p95 ${quantile(seen, 0.95)} ms`;

async function watch() {
  const { module, ingest, web } = await gateway(binary, ["cam"]);
  const publisher = new Publisher(ingest("cam"));
  const browser = await chromium();
  await until("the stream is live", () => fetch(`${web}/live/cam/index.m3u8`).then(({ ok }) => ok, () => false));
  const opened = Date.now();
  const page = await open(browser, `${web}/`);
  await read(page);
  const first = await until("a picture", async () => (await ages(page, publisher))[0]);
  const waited = Date.now() - opened, joined = await watched(page, publisher, 5);
  console.log(`first picture ${waited} ms after the page was asked for, ${first} ms old; in the 5 s after it: ${figures(joined)}`);

  const look = () => page.evaluate(() => ({ engine: live.engine, state: live.state, time: live.video.currentTime, stalls: live.stalls, target: live.target }));
  await until("the page plays", async () => (await look()).state === "playing");
  assert.equal((await look()).engine, "hls.js");
  const screen = page.locator("#screen"), before = await look(), shown = await screen.screenshot();
  const paused = publisher.pauses;
  const seen = await watched(page, publisher, seconds);
  await plays(page, publisher, "pictures after all that time");
  const after = await look();
  assert.ok(after.time > before.time && !shown.equals(await screen.screenshot()), "the picture moves");
  console.log(`${seen.length} pictures in ${seconds} s: ${figures(seen)}; target ${after.target.toFixed(2)} s; ${after.stalls - before.stalls} stalls, ${publisher.pauses - paused} pauses of the publisher`);
  assert.ok(quantile(seen, 0.5) < SANE, "the page keeps near live");
  await until("the module counts what the page reports", async () => {
    const metrics = await module.metrics();
    return /^av_player_latency_seconds_count\{[^}]*flow="cam"[^}]*\} [1-9]/m.test(metrics) && /^av_player_stalls_total\{[^}]*flow="cam"/m.test(metrics);
  });
  assert.equal(page.loads, 1, "the page was not loaded again");
  assert.deepEqual(page.errors, []);
}

await watch().finally(end);
