// One viewer of the player page, through what happens to a stream: `life.mjs HLS_GATEWAY RESTARTS KILLS`. The page is never
// loaded again. Exits with an error where it does not play on.
import assert from "node:assert/strict";
import { chromium, end, gateway, open, plays, Publisher, read, scaled, skip, until } from "./harness.mjs";

const [, , binary, restarts, kills] = process.argv;

async function live() {
  const { module, ingest, web, configure } = await gateway(binary, ["cam"]);
  const browser = await chromium();
  let publisher = new Publisher(ingest("cam"));
  const page = await open(browser, `${web}/`);
  await read(page);
  await plays(page, publisher, "it plays");
  const say = (what, times) => console.log(`${what}: plays on after ${times.join(", ")} ms`);
  const publish = async (what, options) => {
    await publisher.stop();
    publisher = new Publisher(ingest("cam"), options);
    return plays(page, publisher, what);
  };

  const again = [];
  while (again.length < restarts) again.push(await publish("it plays on when the publisher is back"));
  say("publisher restarted", again);

  const killed = [];
  while (killed.length < kills) {
    await module.kill();
    await publisher.stop();
    await module.start();
    killed.push(await publish("it plays on when the module is back"));
  }
  say("module killed", killed);

  // Each makes another playlist behind the same address.
  const changed = [], asked = [];
  page.on("request", (request) => asked.push(request.url()));
  const playlist = async () => {
    const answer = await fetch(`${web}/live/cam/index.m3u8`);
    return answer.ok ? (await answer.text()).trim().split("\n").pop() : "";
  };
  const outputs = [{ segmentSeconds: 4 }, { variant: "mpegts" }];
  if (process.env.AV_LONG) outputs.push({ variant: "fmp4" }, { partMilliseconds: 400 }, {});
  for (const output of outputs) {
    const before = await playlist(), started = Date.now();
    configure(output);
    const name = await until("another playlist", async () => [await playlist()].find((name) => name && name !== before));
    asked.length = 0;
    await until("the page reads it", () => asked.some((url) => url.includes(`/live/cam/${name}`)), 60);
    await plays(page, publisher, `it plays on with ${JSON.stringify(output)}`);
    changed.push(Date.now() - started);
  }
  say("another configuration", changed);

  const size = () => page.evaluate(() => `${live.video.videoWidth}x${live.video.videoHeight}`);
  const sized = [], small = scaled(1280, 720, "libx264"), large = scaled(1920, 1080, "libx264");
  for (const [file, shown] of [[small, "1280x720"], [large, "1920x1080"], [small, "1280x720"]]) {
    sized.push(await publish(`it plays on in ${shown}`, { file }));
    await until(shown, async () => await size() === shown);
  }
  say("720p, 1080p, 720p", sized);

  // Whether a stopped process was the page's own is known only on a quiet machine.
  if (process.env.AV_LONG) await frozen(page, () => plays(page, publisher, "it plays on when it wakes up"), say);
  else skip("a page that was frozen", "long");
  assert.equal(page.loads, 1, "the page was not loaded again");
  assert.deepEqual(page.errors, []);
}

/** The page sleeps while the stream goes on for longer than any buffer, and wakes up. */
async function frozen(page, awake, say) {
  const session = await page.context().browser().newBrowserCDPSession();
  const edge = async () => {
    const { origin } = new URL(page.url());
    const list = await (await fetch(`${origin}/live/cam/index.m3u8`)).text();
    const media = list.split("\n").find((line) => line && !line.startsWith("#"));
    return Number((await (await fetch(new URL(media, `${origin}/live/cam/`))).text()).match(/MEDIA-SEQUENCE:(\d+)/)[1]);
  };
  await page.evaluate(() => {
    globalThis.looks = [performance.now()];
    setInterval(() => looks.push(performance.now()), 100);
  });
  // The lifecycle state that DevTools set stops nothing in a browser without a window; the system stops all.
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const renderers = processInfo.filter(({ type }) => type === "renderer").map(({ id }) => id);
  const from = await edge();
  for (const id of renderers) process.kill(id, "SIGSTOP");
  await until("the stream goes on", async () => await edge() >= from + 6, 60).finally(() => {
    for (const id of renderers) process.kill(id, "SIGCONT");
  });
  const times = [await awake()];
  const slept = await page.evaluate(() => Math.max(...looks.map((at, i) => at - (looks[i - 1] ?? at))));
  assert.ok(slept > 5000, `the page was frozen: ${slept} ms`);
  say(`page frozen for ${Math.round(slept)} ms`, times);
}

await live().finally(end);
