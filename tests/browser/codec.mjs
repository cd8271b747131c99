// One viewer of the player page, while the stream becomes H.265 and H.264 again: `codec.mjs HLS_GATEWAY`. Where Chromium
// decodes no H.265, the page says so, and plays on with H.264.
import assert from "node:assert/strict";
import { chromium, end, gateway, hasFfmpeg9, open, plays, Publisher, read, scaled, skip, until } from "./harness.mjs";

const [, , binary] = process.argv;

async function change() {
  const { ingest, web } = await gateway(binary, ["cam"]);
  let publisher = new Publisher(ingest("cam"));
  const page = await open(await chromium(), `${web}/`);
  await read(page);
  await plays(page, publisher, "it plays");
  const publish = async (options) => {
    await publisher.stop();
    publisher = new Publisher(ingest("cam"), options);
  };
  await publish({ file: scaled(640, 360, "libx265"), hevc: true });
  if (await page.evaluate(() => MediaSource.isTypeSupported('video/mp4; codecs="hvc1.1.6.L63.90"'))) {
    console.log(`H.264, H.265: plays on after ${await plays(page, publisher, "it plays on in H.265")} ms`);
  } else {
    skip("pages::h265", "this Chromium decodes no H.265");
    await until("the page says what is wrong", () => page.evaluate(() => /codec/.test(live.state)), 60);
    await until("and which codec it is", async () => /hvc1/.test(await page.locator("#codecs").textContent()));
  }
  await publish();
  console.log(`H.265, H.264: plays on after ${await plays(page, publisher, "it plays on in H.264 again")} ms`);
  await until("nothing is said of codecs any more", () => page.locator("#codecs").isHidden());
  assert.equal(page.loads, 1, "the page was not loaded again");
  assert.deepEqual(page.errors, []);
}

if (hasFfmpeg9) await change().finally(end);
else skip("pages::h265", "ffmpeg 9 is not installed");
