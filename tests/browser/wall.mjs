// The wall with nine tiles over https, and over plain http: `wall.mjs HLS_GATEWAY SECONDS`.
import assert from "node:assert/strict";
import { chromium, end, gateway, open, Publisher, until } from "./harness.mjs";

const [, , binary, seconds] = process.argv;
const names = Array.from({ length: 9 }, (_, i) => `cam${i + 1}`);

const look = (page) => page.evaluate(() => [...tiles.values()].map(({ live, video }) => ({ state: live.state, time: video.currentTime, stalls: live.stalls, latency: live.latency, muted: video.muted })));
const all = (what, page, holds) => until(what, async () => {
  const seen = await look(page);
  return seen.length === names.length && seen.every(holds) && seen;
}, 120);

async function secure(browser) {
  const { ingest, web } = await gateway(binary, names, { tls: true });
  new Publisher(names.map(ingest));
  const page = await open(browser, `${web}/wall.html`);
  const before = await all("nine tiles play", page, ({ state }) => state === "playing");
  assert.ok(before.every(({ muted }) => muted), "tiles are muted");
  assert.ok(await page.locator("#plain").isHidden(), "https has no notice");
  const protocols = await page.evaluate(() => {
    const media = performance.getEntriesByType("resource").filter(({ name }) => name.includes("/live/"));
    // Of what failed nothing is known.
    return [...new Set(media.map((one) => one.nextHopProtocol).filter(Boolean))];
  });
  assert.deepEqual(protocols, ["h2"], "one connection of HTTP/2 carries all");
  const stop = Date.now() + seconds * 1000;
  await until("that time is over", () => Date.now() > stop, seconds + 60);
  const after = await all("all tiles moved", page, ({ time }, i) => time > before[i].time + seconds / 2);
  const latencies = after.map(({ latency }) => latency).sort((a, b) => a - b);
  const stalls = after.reduce((sum, { stalls }, i) => sum + stalls - before[i].stalls, 0);
  console.log(`nine tiles over HTTP/2, ${seconds} s: ${latencies[4].toFixed(2)} s behind live in the middle, ${latencies[8].toFixed(2)} s at most; ${stalls} stalls`);

  const tile = (n) => page.locator(".tile").nth(n);
  await tile(4).click();
  assert.equal(await page.locator(".tile.large").count(), 1);
  assert.deepEqual((await look(page)).map(({ muted }) => muted).indexOf(false), 4, "the large one has sound");
  await page.keyboard.press("ArrowRight");
  assert.equal(await tile(5).getAttribute("aria-pressed"), "true", "the next is large");
  await page.keyboard.press("Escape");
  assert.equal(await page.locator(".tile.large").count(), 0);
  assert.ok((await look(page)).every(({ muted }) => muted), "no sound when none is large");
  await page.keyboard.press("Enter");
  assert.equal(await tile(5).getAttribute("aria-pressed"), "true", "Enter enlarges");
  await all("all tiles play", page, ({ state }) => state === "playing");
  assert.deepEqual(page.errors, []);
  await page.context().close();
}

async function plain(browser) {
  const { ingest, web } = await gateway(binary, names);
  new Publisher(names.map(ingest));
  const page = await open(browser, `${web}/wall.html`);
  await until("the page says what it needs", async () => /HTTP\/2/.test(await page.locator("#plain:visible").textContent().catch(() => "")));
  await all("nine tiles play whole segments", page, ({ state }) => state === "playing");
  assert.deepEqual(page.errors, []);
}

const browser = await chromium();
await secure(browser).then(() => plain(browser)).finally(end);
