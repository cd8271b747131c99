// The module's list of streams, the keys that were given for some, and what this page tells the module.

const LIST = 5000, REPORT = 10_000;

/** Keys are kept for as long as the tab is open. `#key=…` in the address brings one, for a screen on a wall. */
function keyOf() {
  const given = new URLSearchParams(location.hash.slice(1)).get("key");
  if (given) {
    sessionStorage.setItem("key", given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem("key") ?? "";
}

export class Streams {
  #key = keyOf();
  #offset = NaN;
  #lives = new Map();

  /** `show(streams, error)`: whenever the list was read, or could not be. */
  constructor(show) {
    this.show = show;
    this.list = [];
    this.#look();
    setInterval(() => this.#report(), REPORT);
    addEventListener("pagehide", () => this.#report());
  }

  get key() { return this.#key; }

  set key(key) {
    this.#key = key;
    sessionStorage.setItem("key", key);
    this.#read();
  }

  /** The module's clock minus this machine's, in ms. */
  offset = () => this.#offset;

  /** Address of a stream's playlist, with the key where it needs one. */
  address(stream, ending = "/index.m3u8") {
    const path = stream.path.split("/").map(encodeURIComponent).join("/");
    const key = stream.auth ? `?key=${encodeURIComponent(this.#key)}` : "";
    return `${location.origin}${path}${ending}${key}`;
  }

  /** Has the figures of that player told to the module, under the stream's path. */
  report(stream, live) { this.#lives.set(live, stream); }

  forget(live) { this.#lives.delete(live); }

  async #look() {
    await this.#read();
    setTimeout(() => this.#look(), LIST);
  }

  async #read() {
    const sent = Date.now();
    try {
      const query = this.#key ? `?key=${encodeURIComponent(this.#key)}` : "";
      const answer = await fetch(`/streams.json${query}`, { cache: "no-store", signal: AbortSignal.timeout(LIST) });
      if (!answer.ok) throw new Error(`the module answers ${answer.status}`);
      const { now, streams } = await answer.json();
      const got = Date.now();
      // A slow answer says little of the clock.
      if (Number.isFinite(now) && (got - sent < 300 || Number.isNaN(this.#offset))) this.#offset = now - (sent + got) / 2;
      this.list = streams;
      this.show(streams, "");
    } catch (error) {
      const why = error.message?.startsWith("the module") ? error.message : "the module does not answer";
      this.show(this.list, why);
    }
  }

  #report() {
    const plays = [];
    for (const [live, stream] of this.#lives) {
      const taken = live.take();
      if (taken.latencySeconds.length === 0 && taken.stalls === 0) continue;
      plays.push({ path: stream.path, ...(stream.auth ? { key: this.#key } : {}), ...taken });
    }
    if (plays.length === 0) return;
    const body = JSON.stringify({ plays });
    fetch("/player/report", { method: "POST", body, keepalive: true, headers: { "Content-Type": "application/json" } }).catch(() => {});
  }
}

/** An element with a class, a text, and what belongs in it. */
export function element(name, { text, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

/** A stream's state as a word with a sign. */
export function badge(stream) {
  const sign = stream.live ? "good" : { retrying: "tries", failed: "bad" }[stream.state] ?? "waits";
  return element("b", { className: `state ${sign}`, text: stream.live ? "live" : stream.state });
}

/** `12.3 Mbit/s`. */
export function bitrate(bps) {
  if (!(bps > 0)) return "";
  return bps >= 1e6 ? `${(bps / 1e6).toFixed(2)} Mbit/s` : `${Math.round(bps / 1e3)} kbit/s`;
}

/** Asks for the key, and says which engine plays where that is not the usual one. */
export function frame(streams, engine) {
  const form = document.getElementById("key");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    streams.key = new FormData(form).get("key").trim();
  });
  const said = {
    browser: "Your browser's own player is used: it has no low latency of its own here.",
    none: "This browser plays no HLS: neither hls.js, which is not in this build, nor the browser itself. Copy an address into a player.",
  }[engine];
  const notice = document.getElementById("engine");
  if (said) {
    notice.textContent = globalThis.Hls || engine === "none" ? said : `${said} This build of the module has no hls.js.`;
    notice.hidden = false;
  }
}
