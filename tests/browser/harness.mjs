// What the cases share: the module, publishers whose pictures are numbered, Chromium, and figures read from its picture.
// With AV_PAGES=1 scripts and styles come from their sources, and not from the module: for who works on them, without a build.
import { spawn, spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { createServer as createHttpServer } from "node:http";
import { existsSync, mkdtempSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const tests = join(dirname(fileURLToPath(import.meta.url)), "..");
const require = createRequire(join(tests, ".tools/browser/"));
const sources = join(tests, "../modules/hls-gateway/pages");
const card = join(tests, "../edge-config/testcard.mp4");
/** Of the test card (tests/testcard/card.py). */
const FPS = 30, FRAMES = 240;
/** Of a publisher, in ms. */
const PAUSE = 250;

/** Whatever was started, ended at the end by its id. */
const ends = [];
export async function end() {
  for (const one of ends.reverse()) await one();
}

/** A case that can't be had here: `tests/e2e/pages.rs` counts it. */
export const skip = (what, why) => console.log(`SKIPPED ${what}: ${why}`);

/** A file of an npm package that the tests lock. */
export const packaged = (name) => readFileSync(join(tests, ".tools/browser/node_modules", name), "utf8");

function run(program, args) {
  const { status, stderr } = spawnSync(program, args, { encoding: "utf8", stdio: ["ignore", "ignore", "pipe"] });
  if (status !== 0) throw new Error(`${program}: ${stderr}`);
}

export async function port() {
  const server = createServer();
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

/** Until `look` gives something, at most `seconds`. */
export async function until(what, look, seconds = 40) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((done) => setTimeout(done, 100));
  }
}

/** A module with a flow for each name: `{ module, ingest(name), web, configure(output) }`. `tls`: over https. */
export async function gateway(binary, names, { tls = false, output = {} } = {}) {
  const ports = { rtmp: await port(), http: await port(), metrics: await port() };
  const web = `${tls ? "https" : "http"}://127.0.0.1:${ports.http}`;
  const ingest = (name) => `rtmp://127.0.0.1:${ports.rtmp}/live/${name}`;
  const module = new Module(binary, ports);
  const files = { certificateFile: join(module.folder, "server.pem"), keyFile: join(module.folder, "server.key") };
  const made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "7", "-subj", "/CN=127.0.0.1"];
  if (tls) run("openssl", [...made, "-addext", "subjectAltName=IP:127.0.0.1", "-out", files.certificateFile, "-keyout", files.keyFile]);
  const configure = (output) => {
    const flow = (name) => ({
      input: { listen: ingest(name) },
      outputs: { web: { serve: `${web}/live/${name}`, ...output, ...(tls ? { tls: files } : {}) } },
    });
    module.configure(Object.fromEntries(names.map((name) => [name, flow(name)])));
  };
  configure(output);
  await module.start();
  return { module, ingest, web, configure };
}

/** hls-gateway in a folder of its own. */
export class Module {
  constructor(binary, ports) {
    Object.assign(this, { binary, ports });
    this.folder = mkdtempSync(join(tmpdir(), "pages-"));
    ends.push(() => this.kill());
  }

  /** From now on with these flows, also while it runs. */
  configure(flows) {
    const file = join(this.folder, "twin.json");
    writeFileSync(`${file}.new`, JSON.stringify({ schemaVersion: "1.0", flows }));
    renameSync(`${file}.new`, file);
  }

  async start() {
    const { folder, ports } = this;
    const args = ["--twin", join(folder, "twin.json"), "--state-dir", join(folder, "state"), "--metrics-address", `127.0.0.1:${ports.metrics}`];
    this.process = spawn(this.binary, args, { stdio: ["ignore", "ignore", "pipe"] });
    this.log = "";
    this.process.stderr.on("data", (text) => { this.log += text; });
    await until("the module is ready", () => fetch(`http://127.0.0.1:${ports.metrics}/readyz`).then(({ ok }) => ok, () => false));
  }

  metrics() {
    return fetch(`http://127.0.0.1:${this.ports.metrics}/metrics`).then((answer) => answer.text());
  }

  /** Without a chance to say good-bye. */
  async kill() {
    if (!this.process || this.process.exitCode !== null || this.process.signalCode) return;
    const gone = new Promise((done) => this.process.once("exit", done));
    this.process.kill("SIGKILL");
    await gone;
  }
}

const ffmpeg9 = join(tests, ".tools/ffmpeg9");
export const hasFfmpeg9 = existsSync(ffmpeg9);

/** The test card in another size, encoded anew: a file. */
export function scaled(width, height, encoder) {
  const file = join(mkdtempSync(join(tmpdir(), "clip-")), `${height}.mp4`);
  const encoded = ["-c:v", encoder, "-preset", "ultrafast", "-g", "60", "-bf", "0", "-crf", "30", "-c:a", "copy"];
  if (encoder === "libx265") encoded.push("-x265-params", "log-level=none", "-tag:v", "hvc1");
  run("ffmpeg", ["-v", "error", "-nostdin", "-i", card, "-vf", `scale=${width}:${height}:flags=fast_bilinear`, ...encoded, file]);
  return file;
}

/** The test card, published in real time to one address or several; knows when each of its numbered pictures went out. */
export class Publisher {
  /** When each number was sent last, in Unix ms. */
  sent = new Array(FRAMES).fill(NaN);
  /** How often no picture was sent for longer than players have in their buffers: nothing that they could do about it. */
  pauses = 0;
  #last = NaN;

  constructor(urls, { file = card, hevc = false } = {}) {
    const outputs = [...[urls].flat().map((url) => `[f=flv]${url}`), "[f=framecrc:flush_packets=1]pipe\\:1"].join("|");
    // The tags are those of FLV: what is copied would keep those of MP4.
    const tags = hevc ? ["-tag:v", "1cvh"] : ["-tag:v", "7"];
    const args = ["-v", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i", file, "-c", "copy", "-map", "0", ...tags, "-tag:a", "10", "-f", "tee", outputs];
    // Debian's ffmpeg writes no H.265 to RTMP.
    this.process = spawn(hevc ? ffmpeg9 : "ffmpeg", args, { stdio: ["ignore", "pipe", "inherit"] });
    let rest = "", base = 1 / FPS;
    this.process.stdout.setEncoding("utf8").on("data", (text) => {
      const now = Date.now();
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const time = line.match(/^#tb 0: (\d+)\/(\d+)/);
        if (time) base = time[1] / time[2];
        const packet = line.match(/^0, *-?\d+, *(-?\d+),/);
        if (!packet) continue;
        this.sent[Math.round(packet[1] * base * FPS) % FRAMES] = now;
        if (now - this.#last > PAUSE) this.pauses += 1;
        this.#last = now;
      }
    });
    ends.push(() => this.stop());
  }

  async stop() {
    if (this.process.exitCode !== null || this.process.signalCode) return;
    const gone = new Promise((done) => this.process.once("exit", done));
    this.process.kill("SIGKILL");
    await gone;
  }
}

export async function chromium() {
  const browser = await require("playwright-core").chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
  });
  ends.push(() => browser.close());
  return browser;
}

/** A page whose errors are kept in `errors`. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1100, height: 800 }, ...options });
  const page = await context.newPage();
  page.errors = [];
  page.on("pageerror", (error) => page.errors.push(error.message));
  page.on("console", (message) => {
    // What can't be fetched is said by the page, and tried again.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) page.errors.push(message.text());
  });
  page.loads = 0;
  page.on("load", () => { page.loads += 1; });
  if (process.env.AV_PAGES) {
    await page.route(/\/player\/(pages|live|keep|player|streams|wall)\.(js|css)$/, (route) => {
      const name = new URL(route.request().url()).pathname.split("/").pop();
      return route.fulfill({ contentType: name.endsWith("js") ? "text/javascript" : "text/css", body: readFileSync(join(sources, name)) });
    });
  }
  await page.goto(url);
  return page;
}

/** Has the page read the number of the picture that is shown, four times a second, with the time: into `seen`. */
export const read = (page) => page.evaluate(() => {
  const video = document.querySelector("video");
  const [cells, cell, x0, y0] = [20, 28, 40, 272];
  const canvas = new OffscreenCanvas(cells * cell, 2);
  const ink = canvas.getContext("2d", { willReadFrequently: true });
  globalThis.seen = [];
  let last = 0;
  const look = (now) => {
    video.requestVideoFrameCallback(look);
    if (now - last < 250) return;
    last = now;
    const scale = video.videoWidth / 640;
    ink.drawImage(video, x0 * scale, (y0 + cell / 2) * scale, cells * cell * scale, 2, 0, 0, cells * cell, 2);
    const { data } = ink.getImageData(0, 0, cells * cell, 1);
    const bits = Array.from({ length: cells }, (_, i) => Number(data[4 * Math.round((i + 0.5) * cell)] > 127));
    const word = bits.slice(2, -2).reduce((word, bit) => (word << 1) | bit, 0), number = word >> 4;
    if (bits.slice(0, 2).join("") !== "10" || bits.slice(-2).join("") !== "01") return;
    if (((number ^ (number >> 4) ^ (number >> 8)) & 15) !== (word & 15)) return;
    globalThis.seen.push([number, Date.now()]);
  };
  video.requestVideoFrameCallback(look);
});

/** A page at an origin of its own, with these scripts and nothing else: what other players are run in. */
export async function foreign(...scripts) {
  const body = `<!doctype html><meta charset="utf-8"><video muted autoplay playsinline></video>${scripts.map((_, i) => `<script src="/${i}.js"></script>`).join("")}`;
  const server = createHttpServer((request, answer) => {
    const script = scripts[Number(request.url.match(/^\/(\d+)\.js$/)?.[1])];
    answer.setHeader("Content-Type", script ? "text/javascript" : "text/html");
    answer.end(script ?? body);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  ends.push(() => server.close());
  return `http://127.0.0.1:${server.address().port}/`;
}

/** How old each picture that was read since the last call was, in ms. */
export async function ages(page, publisher) {
  const seen = await page.evaluate(() => globalThis.seen.splice(0));
  return seen.map(([number, at]) => at - publisher.sent[number]).filter(Number.isFinite);
}

export const quantile = (numbers, of) => [...numbers].sort((a, b) => a - b)[Math.min(numbers.length - 1, Math.floor(numbers.length * of))];

/** Until five pictures of that publisher were seen; for how long none was, in ms. */
export async function plays(page, publisher, what) {
  const started = Date.now();
  const seen = [];
  await ages(page, publisher);
  await until(what, async () => {
    // The card begins again after 8 s: what seems older is of another publisher.
    seen.push(...(await ages(page, publisher)).filter((age) => age > 0 && age < 8000));
    return seen.length > 4;
  }, 60);
  return Date.now() - started;
}

/** How old the pictures were that were seen within so many seconds, in ms. */
export async function watched(page, publisher, seconds) {
  const seen = [];
  for (const stop = Date.now() + seconds * 1000; Date.now() < stop;) {
    await new Promise((done) => setTimeout(done, 250));
    seen.push(...await ages(page, publisher));
  }
  return seen;
}
