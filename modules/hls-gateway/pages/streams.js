// The module's list of streams, the keys that were given for some, and what this page tells the module.

const LIST = 5000, REPORT = 10_000;

/** Keys by path, kept for as long as the tab is open. */
class Keys {
  #kept = JSON.parse(sessionStorage.getItem("keys") ?? "{}");

  /** `#path=/live/cam&key=K` in the address brings one, for a screen on a wall that nobody types at. */
  constructor() {
    const given = new URLSearchParams(location.hash.slice(1));
    if (!given.has("key")) return;
    this.set(given.get("path"), given.get("key"));
    history.replaceState(null, "", `#${given.get("path")}`);
  }

  get(path) { return this.#kept[path]; }

  entries() { return Object.entries(this.#kept); }

  set(path, key) {
    if (key === undefined) delete this.#kept[path];
    else this.#kept[path] = key;
    sessionStorage.setItem("keys", JSON.stringify(this.#kept));
  }
}

export class Streams {
  #keys = new Keys();
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

  /** The module's clock minus this machine's, in ms. */
  offset = () => this.#offset;

  /** Address of a stream's playlist, with the key where it needs one. */
  address({ path, needs }, ending = "/index.m3u8") {
    const key = needs === "key" ? `?key=${encodeURIComponent(this.#keys.get(path) ?? "")}` : "";
    return `${location.origin}${encoded(path)}${ending}${key}`;
  }

  /** Has the figures of that player told to the module, under the stream's path. */
  report({ path }, live) { this.#lives.set(live, path); }

  forget(live) { this.#lives.delete(live); }

  /** Lists the stream at `path`, too, if the key opens it; otherwise says why not. */
  async open(path, key) {
    const full = path.startsWith("/") ? path : `/${path}`;
    const { status } = await this.#ask(`?path=${encodeURIComponent(full)}&key=${encodeURIComponent(key)}`);
    if (status === 200) {
      this.#keys.set(full, key);
      await this.#read();
      return "";
    }
    return status === 404 ? `Nothing is served at ${full}.` : "The key is not taken.";
  }

  async #look() {
    await this.#read();
    setTimeout(() => this.#look(), LIST);
  }

  async #ask(query) {
    const sent = Date.now();
    const answer = await fetch(`/-/streams.json${query}`, { cache: "no-store", signal: AbortSignal.timeout(LIST) });
    if (!answer.ok) return { status: answer.status, streams: [] };
    const { now, streams } = await answer.json();
    const got = Date.now();
    // A slow answer says little of the clock.
    if (Number.isFinite(now) && (got - sent < 300 || Number.isNaN(this.#offset))) this.#offset = now - (sent + got) / 2;
    return { status: 200, streams };
  }

  async #read() {
    try {
      const { status, streams } = await this.#ask("");
      if (status !== 200) throw new Error(`the module answers ${status}`);
      for (const [path, key] of this.#keys.entries()) {
        const opened = await this.#ask(`?path=${encodeURIComponent(path)}&key=${encodeURIComponent(key)}`);
        if (opened.status === 401 || opened.status === 403) this.#keys.set(path);
        streams.push(...opened.streams.filter((one) => streams.every(({ path }) => path !== one.path)));
      }
      this.list = named(streams);
      this.show(this.list, "");
    } catch (error) {
      const why = error.message?.startsWith("the module") ? error.message : "the module does not answer";
      this.show(this.list, why);
    }
  }

  #report() {
    for (const [live, path] of this.#lives) {
      const { latencies, stalls } = live.take();
      if (latencies.length === 0 && stalls === 0) continue;
      const latencySeconds = latencies.sort((a, b) => a - b)[latencies.length >> 1];
      const body = JSON.stringify({ path, latencySeconds, stalls });
      fetch("/-/report", { method: "POST", body, keepalive: true, headers: { "Content-Type": "application/json" } }).catch(() => {});
    }
  }
}

const encoded = (path) => path.split("/").map(encodeURIComponent).join("/");

/** Adds `live`, and a `name`: the flow's, or where several streams are of one flow, the last part of the path. */
function named(streams) {
  const alone = (flow) => streams.filter((one) => one.flow === flow).length === 1;
  return streams.map((one) => ({ ...one, live: one.state === "live", name: alone(one.flow) ? one.flow : one.path.split("/").pop() }));
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
  const [sign, word] = { live: ["good", "live"], gap: ["tries", "publisher away"] }[stream.state] ?? ["waits", "not live"];
  return element("b", { className: `state ${sign}`, text: word });
}

/** `12.3 Mbit/s`. */
export function bitrate(bps) {
  if (!(bps > 0)) return "";
  return bps >= 1e6 ? `${(bps / 1e6).toFixed(2)} Mbit/s` : `${Math.round(bps / 1e3)} kbit/s`;
}

/** Codecs of a stream that this browser, asked beforehand, says it does not play. */
export function unplayed({ video, audio }, engine) {
  const source = globalThis.ManagedMediaSource ?? globalThis.MediaSource;
  const element = document.createElement("video");
  const plays = (type) => (engine === "hls.js" ? source.isTypeSupported(type) : element.canPlayType(type));
  const tracks = [["video", video], ["audio", audio]].filter(([, track]) => track?.codec);
  const lost = tracks.filter(([kind, { codec }]) => ![codec, codec.replace("opus", "Opus")].some((name) => plays(`${kind}/mp4; codecs="${name}"`)));
  return lost.map(([, { codec }]) => codec);
}

/** Asks for keys, and says which engine plays where that is not the usual one. */
export function frame(streams, engine) {
  const form = document.getElementById("key");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = new FormData(form), refused = document.getElementById("refused");
    const why = await streams.open(given.get("path").trim(), given.get("key")).catch(() => "The module does not answer.");
    refused.textContent = why;
    refused.hidden = !why;
    if (!why) form.reset();
  });
  const said = {
    browser: "Your browser's own player is used: it has no low latency of its own here.",
    none: "This browser plays no HLS: neither hls.js, which is not in this build, nor the browser itself. Copy an address into a player.",
  }[engine];
  document.getElementById("with").hidden = !globalThis.Hls;
  const notice = document.getElementById("engine");
  if (said) {
    notice.textContent = globalThis.Hls || engine === "none" ? said : `${said} This build of the module has no hls.js.`;
    notice.hidden = false;
  }
}
