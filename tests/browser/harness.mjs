// What the cases share: the module, publishers whose pictures are numbered, Chromium, and figures read from its picture.
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const tests = join(dirname(fileURLToPath(import.meta.url)), "..");
const require = createRequire(join(tests, ".tools/browser/"));
const card = join(tests, "../edge-config/testcard.mp4");
/** Of the test card (tests/testcard/card.py). */
const FPS = 30, FRAMES = 240;

/** Whatever was started, ended at the end by its id. */
const ends = [];
export async function end() {
  for (const one of ends.reverse()) await one();
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

/** hls-gateway with these flows. */
export class Module {
  constructor(binary, flows, ports) {
    Object.assign(this, { binary, ports });
    this.folder = mkdtempSync(join(tmpdir(), "pages-"));
    writeFileSync(join(this.folder, "twin.json"), JSON.stringify({ schemaVersion: "1.0", flows }));
    ends.push(() => this.kill());
  }

  async start() {
    const { folder, ports } = this;
    const args = ["--twin", join(folder, "twin.json"), "--state-dir", join(folder, "state"), "--metrics-address", `127.0.0.1:${ports.metrics}`];
    this.process = spawn(this.binary, args, { stdio: ["ignore", "ignore", "pipe"] });
    this.log = "";
    this.process.stderr.on("data", (text) => { this.log += text; });
    await until("the module is ready", () => fetch(`http://127.0.0.1:${ports.metrics}/readyz`).then(({ ok }) => ok, () => false));
  }

  /** Without a chance to say good-bye. */
  async kill() {
    if (!this.process || this.process.exitCode !== null || this.process.signalCode) return;
    const gone = new Promise((done) => this.process.once("exit", done));
    this.process.kill("SIGKILL");
    await gone;
  }
}

/** The test card, published in real time; knows when each of its numbered pictures went out. */
export class Publisher {
  /** When each number was sent last, in Unix ms. */
  sent = new Array(FRAMES).fill(NaN);

  constructor(url, input = ["-i", card, "-c", "copy"]) {
    const outputs = `[f=flv]${url}|[f=framecrc:flush_packets=1]pipe\\:1`;
    // The tags are those of FLV: what is copied would keep those of MP4.
    const args = ["-v", "error", "-nostdin", "-re", "-stream_loop", "-1", ...input, "-map", "0", "-tag:v", "7", "-tag:a", "10", "-f", "tee", outputs];
    this.process = spawn("ffmpeg", args, { stdio: ["ignore", "pipe", "inherit"] });
    let rest = "", base = 1 / FPS;
    this.process.stdout.setEncoding("utf8").on("data", (text) => {
      const now = Date.now();
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const time = line.match(/^#tb 0: (\d+)\/(\d+)/);
        if (time) base = time[1] / time[2];
        const packet = line.match(/^0, *-?\d+, *(-?\d+),/);
        if (packet) this.sent[Math.round(packet[1] * base * FPS) % FRAMES] = now;
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

/** How old each picture that was read since the last call was, in ms. */
export async function ages(page, publisher) {
  const seen = await page.evaluate(() => globalThis.seen.splice(0));
  return seen.map(([number, at]) => at - publisher.sent[number]).filter(Number.isFinite);
}

export const quantile = (numbers, of) => [...numbers].sort((a, b) => a - b)[Math.min(numbers.length - 1, Math.floor(numbers.length * of))];
