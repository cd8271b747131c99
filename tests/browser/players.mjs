// Other players in Chromium, from pages of another origin: `players.mjs HLS_GATEWAY`.
import assert from "node:assert/strict";
import { chromium, end, foreign, gateway, open, packaged, plays, Publisher, quantile, read, watched } from "./harness.mjs";

const [, , binary] = process.argv;

const players = {
  "hls.js 1.6.19": [packaged("hls.js-1.6/dist/hls.min.js"), (url) => {
    const hls = new Hls({ lowLatencyMode: true });
    hls.on(Hls.Events.ERROR, (_, { fatal, details }) => { if (fatal) console.error(details); });
    hls.loadSource(url);
    hls.attachMedia(document.querySelector("video"));
    return Hls.version;
  }],
  "Shaka 5.2.12": [packaged("shaka-player/dist/shaka-player.compiled.js"), async (url) => {
    shaka.polyfill.installAll();
    const player = new shaka.Player();
    player.addEventListener("error", ({ detail }) => console.error(detail.code));
    await player.attach(document.querySelector("video"));
    player.configure({ streaming: { lowLatencyMode: true } });
    await player.load(url);
    return shaka.Player.version;
  }],
};

async function play() {
  const { ingest, web } = await gateway(binary, ["cam"]);
  const publisher = new Publisher(ingest("cam"));
  const browser = await chromium();
  const url = `${web}/live/cam/index.m3u8`;
  for (const [name, [script, start]] of Object.entries(players)) {
    const page = await open(browser, await foreign(script));
    const version = await page.evaluate(start, url).catch((error) => { throw new Error(`${name}: ${error.message}`); });
    assert.match(version, new RegExp(name.split(" ")[1].replaceAll(".", "\\.")));
    await read(page);
    await plays(page, publisher, `${name} plays`);
    const from = await page.evaluate(() => document.querySelector("video").currentTime);
    const seen = await watched(page, publisher, 8);
    assert.ok(await page.evaluate(() => document.querySelector("video").currentTime) > from, `${name} plays on`);
    console.log(`${name}: ${quantile(seen, 0.5)} ms old`);
    assert.deepEqual(page.errors, []);
    await page.context().close();
  }
}

await play().finally(end);
