// One viewer of the player page, through what happens to a stream: `watch.mjs HLS_GATEWAY SECONDS`.
// Prints how old the pictures were; exits with an error where something does not hold.
import assert from "node:assert/strict";
import { ages, chromium, end, Module, open, port, Publisher, quantile, read, until } from "./harness.mjs";

const [, , binary, seconds] = process.argv;

async function watch() {
  const ports = { rtmp: await port(), http: await port(), metrics: await port() };
  const ingest = `rtmp://127.0.0.1:${ports.rtmp}/live/cam`;
  const flows = { cam: { input: { listen: ingest }, outputs: { web: { serve: `http://127.0.0.1:${ports.http}/live/cam` } } } };
  const module = new Module(binary, flows, ports);
  await module.start();
  let publisher = new Publisher(ingest);
  const page = await open(await chromium(), `http://127.0.0.1:${ports.http}/`);
  const look = () => page.evaluate(() => ({ engine: live.engine, state: live.state, time: live.video.currentTime, stalls: live.stalls }));
  const plays = async (what) => {
    let count = 0;
    await ages(page, publisher);
    await until(what, async () => (count += (await ages(page, publisher)).length) > 4);
  };

  await until("the page plays", () => page.evaluate(() => globalThis.live?.state === "playing"));
  assert.equal((await look()).engine, "hls.js");
  await read(page);
  await plays("numbered pictures are seen");
  const screen = page.locator("#screen"), first = await screen.screenshot();
  const before = await look(), seen = [];
  for (const stop = Date.now() + seconds * 1000; Date.now() < stop;) {
    await new Promise((done) => setTimeout(done, 1000));
    seen.push(...await ages(page, publisher));
  }
  const after = await look();
  assert.ok(after.time > before.time && !first.equals(await screen.screenshot()), "the picture moves");
  console.log(`${seen.length} pictures in ${seconds} s: ${quantile(seen, 0.5)} ms old, p95 ${quantile(seen, 0.95)} ms; ${after.stalls - before.stalls} stalls`);
  await until("the module counts what the page reports", async () => {
    const metrics = await (await fetch(`http://127.0.0.1:${ports.metrics}/metrics`)).text();
    return /^av_player_latency_seconds_count\{[^}]*flow="cam"[^}]*\} [1-9]/m.test(metrics);
  });

  await publisher.stop();
  publisher = new Publisher(ingest);
  await plays("it plays on when the publisher is back");
  await module.kill();
  await publisher.stop();
  await module.start();
  publisher = new Publisher(ingest);
  await plays("it plays on when the module is back");
  assert.equal(page.loads, 1, "the page was not loaded again");
  assert.deepEqual(page.errors, []);
}

await watch().finally(end);
