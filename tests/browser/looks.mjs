// How the pages look, and what they say where something is missing: `looks.mjs HLS_GATEWAY FOLDER`. Pictures of all pages
// in both colour schemes, and of a narrow screen, are left in FOLDER.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { chromium, end, gateway, open, plays, Publisher, read, until } from "./harness.mjs";

const [, , binary, folder] = process.argv;
mkdirSync(folder, { recursive: true });
const names = ["front-door", "loading-dock", "yard"];

async function looks() {
  const links = [{ label: "RTSP", url: "rtsp://gateway.example.com:8554/live/front-door" }];
  const { module, ingest, web } = await gateway(binary, names, { output: { links } });
  const publisher = new Publisher(names.slice(0, 2).map(ingest));
  const browser = await chromium();
  const metrics = `http://127.0.0.1:${module.ports.metrics}/`;
  const shows = { "/": "playing", "/player.html": "playing", "/wall.html": "playing" };
  for (const colorScheme of ["light", "dark"]) {
    const sizes = { wide: { width: 1280, height: 900 }, ...(colorScheme === "light" ? { narrow: { width: 390, height: 844 } } : {}) };
    for (const [size, viewport] of Object.entries(sizes)) {
      for (const path of [...Object.keys(shows), metrics]) {
        const page = await open(browser, path === metrics ? metrics : web + path, { colorScheme, viewport });
        if (path !== metrics) {
          const state = () => globalThis.live?.state ?? [...(globalThis.tiles?.values() ?? [])].find(({ live }) => live.state === "playing")?.live.state;
          await until("it plays", () => page.evaluate(state).then((state) => state === "playing"));
          await until("figures are shown", () => page.evaluate(() => /\d\.\d+ s/.test(document.body.textContent)));
        }
        if (path === "/") assert.ok(await page.getByRole("link", { name: links[0].url }).isVisible(), "the flow's links are shown");
        const name = path === metrics ? "metrics" : path.replace(/\W/g, "") || "root";
        await page.screenshot({ path: join(folder, `${name}-${colorScheme}-${size}.png`), fullPage: true });
        const { scrollWidth, clientWidth } = await page.evaluate(() => (({ scrollWidth, clientWidth }) => ({ scrollWidth, clientWidth }))(document.documentElement));
        assert.ok(scrollWidth <= clientWidth, `${name} ${size}: nothing is cut off at the right`);
        assert.deepEqual(page.errors, []);
        await page.context().close();
      }
    }
  }

  // The browser's own HLS, where it has it, asked for and as the only one.
  const bare = { script: "/player/hls.min.js", body: "/* hls.js is not in this build */" };
  const native = await open(browser, "about:blank").then((page) => page.evaluate(() => document.createElement("video").canPlayType("application/vnd.apple.mpegurl")));
  for (const without of [false, true]) {
    const page = await open(browser, "about:blank");
    if (without) await page.route(`**${bare.script}`, (route) => route.fulfill({ contentType: "text/javascript", body: bare.body }));
    await page.goto(`${web}/?engine=browser`);
    if (native) {
      await read(page);
      await plays(page, publisher, "the browser itself plays");
      assert.equal(await page.evaluate(() => live.engine), "browser");
    }
    const said = await until("the page says who plays", () => page.locator("#engine").textContent());
    if (without) assert.match(said, native ? /This build of the module has no hls\.js/ : /not in this build/);
    else if (native) assert.match(said, /browser's own player/);
    await page.screenshot({ path: join(folder, `browser-${without ? "without" : "with"}-hlsjs.png`), fullPage: true });
    await page.context().close();
  }
  console.log(`the browser's own HLS: ${native ? "plays" : "not in this Chromium"}`);
}

await looks().finally(end);
