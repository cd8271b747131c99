// A stream whose key is changed while its page is open: `key.mjs HLS_GATEWAY`. The page plays on once the new key is given,
// and is not loaded again.
import assert from "node:assert/strict";
import { chromium, end, gateway, open, plays, Publisher, read, until } from "./harness.mjs";

const [, , binary] = process.argv;
const keyed = (key) => ({ segmentSeconds: 1, auth: { key } });

async function change() {
  const { ingest, web, configure } = await gateway(binary, ["cam"], { output: keyed("old") });
  const publisher = new Publisher(ingest("cam"));
  const browser = await chromium();
  const page = await open(browser, `${web}/#path=/live/cam&key=old`);
  await read(page);
  await plays(page, publisher, "it plays with the key of its address");
  // One after the other is taken while the page plays, so that there is no moment in which it has none.
  configure(keyed(["old", "new"]));
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  const give = async (key, to = page) => {
    await to.fill("#key input[name=path]", "/live/cam");
    await to.fill("#key input[name=key]", key);
    await to.click("#key button");
  };
  await until("the new key is taken", () => fetch(`${web}/live/cam/index.m3u8?key=new`).then(({ ok }) => ok, () => false));
  await give("new");
  await until("the page asks with the new key", () => asked.some((url) => url.includes("/live/cam/index.m3u8?key=new")));
  await plays(page, publisher, "it plays with the new key");
  assert.equal(await page.evaluate(() => live.url), `${web}/live/cam/index.m3u8?key=new`);

  const wall = await open(browser, `${web}/wall.html#path=/live/cam&key=old`);
  const tile = (key) => until(`a tile plays with the key ${key}`, () => wall.evaluate((end) => {
    const live = globalThis.tiles?.get("/live/cam")?.live;
    return live?.url.endsWith(end) && live.state === "playing";
  }, `?key=${key}`));
  await tile("old");
  await give("new", wall);
  await tile("new");
  assert.deepEqual(wall.errors, []);
  await wall.context().close();

  configure(keyed("third"));
  await until("the page is refused", () => page.evaluate(() => live.state !== "playing"));
  await give("third");
  await plays(page, publisher, "it plays again with a key that is given after it was refused");
  assert.equal(page.loads, 1, "the page was not loaded again");
  assert.deepEqual(page.errors, []);
}

await change().finally(end);
