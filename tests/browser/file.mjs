// A recording in Chromium's own player: `file.mjs URL PICTURE` seeks to its middle, writes a screenshot of it to PICTURE,
// plays to the end, and prints duration and position as JSON.
import assert from "node:assert/strict";
import { chromium, end, until } from "./harness.mjs";

const [, , url, picture] = process.argv;

async function watch() {
  const page = await (await chromium()).newPage({ viewport: { width: 800, height: 600 } });
  await page.setContent('<video muted preload="auto" style="width: 640px"></video>');
  await page.evaluate((url) => { document.querySelector("video").src = url; }, url);
  const look = () => page.evaluate(() => {
    const { duration, currentTime, readyState, seeking, error, buffered } = document.querySelector("video");
    const loaded = buffered.length ? buffered.end(buffered.length - 1) : 0;
    return { duration, currentTime, readyState, seeking, loaded, error: error?.message };
  });
  let state;
  const shows = async (what, fits) => {
    const there = async () => {
      state = await look();
      assert.equal(state.error, undefined);
      return state.readyState >= 2 && !state.seeking && fits(state) && state;
    };
    return until(what, there).catch((error) => { throw new Error(`${error.message}: ${JSON.stringify(state)}`); });
  };
  const { duration } = await shows("the file opens", () => true);
  await page.evaluate((at) => { document.querySelector("video").currentTime = at; }, duration / 2);
  // Chromium counts whole microseconds.
  const middle = await shows("it seeks", ({ currentTime }) => currentTime >= duration / 2 - 0.001);
  await page.locator("video").screenshot({ path: picture });
  await page.evaluate(() => document.querySelector("video").play());
  await shows("it plays on to the end", ({ currentTime }) => currentTime >= duration - 0.05);
  console.log(JSON.stringify({ duration, middle: middle.currentTime }));
}

await watch().finally(end);
