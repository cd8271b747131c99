// The list of live streams, and the one that is chosen.
import { Live, engine } from "./live.js";
import { Streams, badge, bitrate, element, frame, unplayed } from "./streams.js";

const at = (id) => document.getElementById(id);
const video = at("video"), none = "–";
let live = null, chosen = null;

/** What an address names, also where somebody has typed a stray `%`. */
function named(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

const streams = new Streams((list, error) => {
  at("lost").hidden = !error;
  at("lost").textContent = error ? `${error[0].toUpperCase()}${error.slice(1)}; the list is an older one.` : "";
  at("empty").hidden = list.length > 0;
  show(list);
  const wanted = named(location.hash.slice(1));
  if (!chosen) choose(list.find(({ path }) => path === wanted) ?? list.find((one) => one.live) ?? list[0]);
  else {
    const listed = list.find(({ path }) => path === chosen.path);
    // Another key opens the same stream at another address.
    if (listed && !error) choose(listed);
    addresses(listed ?? chosen);
  }
});
frame(streams, engine());

/** Replaces the list where it differs, so that the keyboard's place in it stays. */
function show(list) {
  const drawn = JSON.stringify([list.map(({ path, name, state }) => [path, name, state]), chosen?.path]);
  if (at("streams").dataset.drawn === drawn) return;
  const focus = document.activeElement?.dataset.path;
  at("streams").replaceChildren(...list.map((stream) => {
    const button = element("button", { type: "button", onclick: () => choose(stream) }, element("span", { text: stream.name }), badge(stream), element("small", { text: stream.path }));
    button.dataset.path = stream.path;
    if (stream.path === chosen?.path) button.setAttribute("aria-current", "true");
    return element("li", {}, button);
  }));
  at("streams").dataset.drawn = drawn;
  [...at("streams").querySelectorAll("button")].find(({ dataset }) => dataset.path === focus)?.focus();
}

function choose(stream) {
  if (!stream || (stream.path === chosen?.path && streams.address(stream) === live.url)) return;
  if (live) {
    streams.forget(live);
    live.stop();
  }
  chosen = stream;
  history.replaceState(null, "", `#${stream.path}`);
  at("title").textContent = document.title = stream.name;
  live = new Live(video, streams.address(stream), { offset: streams.offset, changed: tell });
  streams.report(stream, live);
  // For whoever watches the page from outside: its figures as they are.
  globalThis.live = live;
  addresses(stream);
  show(streams.list);
}

function tell() {
  const { state, past } = live ?? {};
  at("state").textContent = state === "playing" ? "" : state ?? "";
  at("live").hidden = !past;
}

function addresses(stream) {
  const lost = unplayed(stream, live?.engine).join(" and ");
  at("codecs").hidden = !lost;
  at("codecs").textContent = lost && `This browser says that it does not play ${lost}.`;
  const rows = [
    ["HLS", streams.address(stream)],
    ["HLS, older form", streams.address(stream, ".m3u8")],
    ["This page", `${location.origin}/player.html#${stream.path}`],
    ...(stream.links ?? []).map(({ label, url }) => [label, url]),
  ];
  const drawn = JSON.stringify(rows);
  if (at("addresses").dataset.drawn === drawn) return;
  at("addresses").dataset.drawn = drawn;
  at("addresses").hidden = false;
  at("addresses").lastElementChild.replaceChildren(...rows.map(([label, url]) => {
    const opened = /^(https?|rtmps?|rtsps?|srt):\/\//.test(url);
    const address = opened ? element("a", { href: url, text: url, rel: "noreferrer" }) : element("code", { text: url });
    return element("p", { className: "address" }, element("span", { text: label }), " ", address, " ", element("button", { type: "button", className: "copy", text: "Copy" }));
  }));
}

function figures() {
  if (!live) return;
  const { size, codec, bps, dropped } = live.facts();
  const rows = {
    "behind live": Number.isFinite(live.latency) ? `${live.latency.toFixed(2)} s` : none,
    resolution: size || none,
    codec: codec || none,
    bitrate: bitrate(bps) || none,
    "dropped frames": dropped,
    stalls: live.stalls,
    "played by": live.engine === "hls.js" ? `hls.js ${globalThis.Hls.version}` : "the browser itself",
  };
  at("facts").hidden = false;
  at("facts").firstElementChild.replaceChildren(...Object.entries(rows).map(([name, value]) => element("div", {}, element("dt", { text: name }), element("dd", { text: value }))));
}
setInterval(figures, 1000);

const sound = () => {
  at("sound").setAttribute("aria-pressed", String(!video.muted));
  at("sound").textContent = video.muted ? "Sound on" : "Sound off";
};
at("sound").addEventListener("click", () => { video.muted = !video.muted; });
video.addEventListener("volumechange", sound);
at("live").addEventListener("click", () => live?.toLive());
addEventListener("hashchange", () => choose(streams.list.find(({ path }) => path === named(location.hash.slice(1)))));
