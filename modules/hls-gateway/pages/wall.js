// Up to 16 streams at once, muted; the one that is clicked is large and has sound.
import { Live, engine } from "./live.js";
import { Streams, badge, element, frame } from "./streams.js";

const MOST = 16;
/** So many tiles have a connection for the playlist and one for media on plain http, too. */
const PLAIN = 3;
const at = (id) => document.getElementById(id);
/** By path. */
const tiles = new Map();
let large = null;

const streams = new Streams((list, error) => {
  at("lost").hidden = !error;
  at("lost").textContent = error ? `${error[0].toUpperCase()}${error.slice(1)}.` : "";
  at("empty").hidden = list.length > 0;
  // What is live first; a tile that is there stays where it is.
  const wanted = [...list.filter(({ path }) => tiles.has(path)), ...list.filter(({ path }) => !tiles.has(path)).sort((a, b) => b.live - a.live)].slice(0, MOST);
  at("more").hidden = list.length <= MOST;
  at("more").textContent = `${list.length - MOST} more streams are on the player page: a wall has ${MOST} tiles.`;
  for (const [path, tile] of tiles) if (!error && !wanted.some((stream) => stream.path === path)) remove(path, tile);
  const few = location.protocol === "https:" || wanted.length <= PLAIN;
  at("plain").hidden = few;
  for (const stream of wanted) {
    const tile = tiles.get(stream.path);
    // Another key opens the same stream at another address.
    const isOther = tile && (tile.live.lowLatency !== few || (!error && tile.live.url !== streams.address(stream)));
    if (isOther) remove(stream.path, tile);
    if (!tiles.has(stream.path)) add(stream, few);
    else tiles.get(stream.path).show(stream);
  }
  at("tiles").style.setProperty("--columns", Math.ceil(Math.sqrt(wanted.length || 1)));
});
frame(streams, engine());

function add(stream, lowLatency) {
  const video = element("video", { muted: true, playsInline: true, autoplay: true });
  const label = element("span", { className: "label" });
  const button = element("button", { type: "button", className: "tile", onclick: () => enlarge(large === stream.path ? null : stream.path) }, video, label);
  // A player tells of its state before it is part of a tile.
  let tile = null;
  const live = new Live(video, streams.address(stream), { offset: streams.offset, lowLatency, changed: () => tile?.show() });
  tile = {
    stream, video, button, live,
    show(newer = tile.stream) {
      tile.stream = newer;
      const late = Number.isFinite(live.latency) ? `${live.latency.toFixed(1)} s` : "";
      const state = newer.live && live.state !== "playing" ? element("span", { text: live.state }) : badge(newer);
      label.replaceChildren(element("span", { text: newer.name }), state, element("span", { text: newer.live ? late : "" }));
      button.setAttribute("aria-label", `${newer.name}, ${newer.live ? live.state : "not live"}`);
    },
  };
  tiles.set(stream.path, tile);
  streams.report(stream, live);
  at("tiles").append(button);
  tile.show();
}

function remove(path, { live, button }) {
  if (large === path) enlarge(null);
  streams.forget(live);
  live.stop();
  button.remove();
  tiles.delete(path);
}

function enlarge(path) {
  large = path;
  at("tiles").classList.toggle("one", path !== null);
  for (const [of, { button, video }] of tiles) {
    button.classList.toggle("large", of === path);
    button.setAttribute("aria-pressed", String(of === path));
    video.muted = of !== path;
  }
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape") enlarge(null);
  const buttons = [...tiles.values()].map(({ button }) => button);
  const row = buttons.filter(({ offsetTop }) => offsetTop === buttons[0].offsetTop).length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row }[event.key];
  const here = buttons.indexOf(document.activeElement?.closest(".tile"));
  if (!step || here < 0) return;
  // Up and down stay in their column; left and right go round.
  const next = buttons[Math.abs(step) > 1 ? here + step : (here + step + buttons.length) % buttons.length];
  if (!next) return;
  event.preventDefault();
  next.focus();
  if (large !== null) next.click();
});
setInterval(() => tiles.forEach((tile) => tile.show()), 1000);
// For whoever watches the page from outside: its players as they are.
globalThis.tiles = tiles;
