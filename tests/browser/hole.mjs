// The publisher is away for so long that no buffer reaches over it: `hole.mjs HLS_GATEWAY SECONDS`. The page, and hls.js
// as it is in a page of another origin, play on behind the hole. Neither is loaded again, and nobody helps them.
import assert from "node:assert/strict";
import { chromium, end, foreign, gateway, open, plays, Publisher, read, until } from "./harness.mjs";

const [, , binary, seconds] = process.argv;

/** hls.js with nothing configured but low latency, which is its default. It starts once, and what is fatal is an error. */
const plain = (url) => {
  const hls = new Hls();
  hls.on(Hls.Events.ERROR, (_, { fatal, details }) => { if (fatal) console.error(details); });
  hls.loadSource(url);
  hls.attachMedia(document.querySelector("video"));
  return Hls.version;
};

async function hole() {
  const { ingest, web } = await gateway(binary, ["cam"]);
  let publisher = new Publisher(ingest("cam"));
  const browser = await chromium();
  const script = await (await fetch(`${web}/player/hls.min.js`)).text();
  const index = `${web}/live/cam/index.m3u8`;
  const pages = { page: await open(browser, `${web}/`), "hls.js": await open(browser, await foreign(script)) };
  console.log(`hls.js ${await pages["hls.js"].evaluate(plain, index)}`);
  for (const [name, page] of Object.entries(pages)) {
    await read(page);
    await plays(page, publisher, `${name} plays`);
  }
  const media = new URL((await (await fetch(index)).text()).trim().split("\n").pop(), index);
  const gone = async () => {
    const text = await (await fetch(media)).text();
    const parts = [...text.matchAll(/^#EXT-X-PART:DURATION=([\d.]+).*GAP=YES/gm)];
    const whole = [...text.matchAll(/^#EXT-X-GAP\n#EXTINF:([\d.]+)/gm)];
    // Parts of finished segments are listed beside them.
    return Math.max(...[parts, whole].map((all) => all.reduce((sum, [, seconds]) => sum + Number(seconds), 0)));
  };
  await publisher.stop();
  await until(`${seconds} s of gaps`, async () => await gone() >= seconds);
  publisher = new Publisher(ingest("cam"));
  const waited = await Promise.all(Object.entries(pages).map(async ([name, page]) =>
    `${name} after ${await plays(page, publisher, `${name} plays on behind the hole`)} ms`));
  console.log(`publisher away for ${seconds} s: ${waited.join(", ")}`);
  for (const [name, page] of Object.entries(pages)) {
    const { ranges, time } = await page.evaluate(() => {
      const { buffered, currentTime } = document.querySelector("video");
      return { ranges: Array.from({ length: buffered.length }, (_, i) => [buffered.start(i), buffered.end(i)]), time: currentTime };
    });
    assert.ok(time >= ranges.at(-1)[0], `${name} is behind the hole: ${time} of ${JSON.stringify(ranges)}`);
    assert.equal(page.loads, 1, `${name} was not loaded again`);
    assert.deepEqual(page.errors, [], name);
  }
}

await hole().finally(end);
