// One live stream in one video element: plays, keeps near live, and comes back from whatever goes wrong.
import { steer, Target, behind, wantsPast } from "./keep.js";

const TICK = 250;
/** Ticks that far apart: the machine slept. */
const SLEPT = 5000;
/** No picture for so long, though there should be one: begin again. */
const STUCK = 10_000;
/** A picture that stands still for so long is a stall. */
const STALL = 300;
/** A jump to the target; after it, the next one not before, just after the beginning and later. */
const JUMPS = { first: 2, begun: 5000, soon: 600, later: 10_000 };
/** A jump takes its time: until the decoder has come from the sync frame to the picture. */
const JUMPING = 1500;
/** Between two beginnings. */
const PATIENCE = { least: 500, most: 3000 };
/** The same where the module answers, and a stream will come: a question a second is cheap. */
const NOT_LIVE = 1000;
/** So much that was played is kept for who seeks back, in seconds; it is dropped when there is half as much more. */
const BACK = 20;
/** On these, a changed speed of what scripts feed is not to be had; their own player is good. */
const PHONE = /iPhone|iPod/.test(navigator.userAgent);

/** What plays here: hls.js, the browser itself, or nothing. */
export function engine() {
  const native = document.createElement("video").canPlayType("application/vnd.apple.mpegurl") !== "";
  const asked = new URLSearchParams(location.search).get("engine");
  if (native && (PHONE || asked === "browser")) return "browser";
  if (globalThis.Hls?.isSupported()) return "hls.js";
  return native ? "browser" : "none";
}

export class Live {
  /** Stalls, and latencies of each second, since they were last taken. */
  #stalls = 0;
  #latencies = [];
  #hls = null;
  #timer = 0;
  #again = 0;
  #tries = 0;
  #target = new Target();
  #last = { at: 0, time: -1, moved: 0, sampled: 0 };
  #standing = false;
  /** The picture stands since the publisher is away: nobody else's fault. */
  #away = false;
  #seen = false;
  #recovered = 0;
  /** When the first picture moved, and the last jump to the target; how many there were since. */
  #began = { at: 0, jumped: -Infinity, jumps: 0 };
  #rate = { bytes: 0, seconds: 0, bps: 0 };
  #listeners = new AbortController();
  /** The seek that comes is not the viewer's. */
  #own = false;

  /**
   * `offset()`: the module's clock minus this machine's, in ms, NaN where unknown. `lowLatency` false: whole
   * segments only, with few requests. `changed()` is called when `state` is another.
   */
  constructor(video, url, { offset = () => NaN, lowLatency = true, changed = () => {} } = {}) {
    Object.assign(this, { video, url, offset, lowLatency, changed });
    this.engine = engine();
    this.state = "";
    this.stalls = 0;
    this.latency = NaN;
    /** Whether the viewer went back in time on purpose. */
    this.past = false;
    const on = (name, handle) => video.addEventListener(name, handle, { signal: this.#listeners.signal });
    on("seeking", () => this.#sought());
    on("loadeddata", () => this.#settle(performance.now()));
    on("play", () => { if (this.#seen && !this.past) this.toLive(); });
    on("error", () => { if (!this.#hls) this.#restart("the browser can't play it"); });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && !this.past && !this.video.paused) this.toLive();
    }, { signal: this.#listeners.signal });
    addEventListener("online", () => this.#restart("back on line"), { signal: this.#listeners.signal });
    this.#begin();
    this.#timer = setInterval(() => this.#tick(), TICK);
  }

  stop() {
    clearInterval(this.#timer);
    clearTimeout(this.#again);
    this.#listeners.abort();
    this.#end();
    this.video.removeAttribute("src");
    this.video.load();
  }

  /** How far behind live it wants to be, in seconds. */
  get target() { return this.#target.value(performance.now() / 1000); }

  /** To the live edge, from wherever it is. */
  toLive() {
    this.past = false;
    const to = this.#livePosition();
    if (Number.isFinite(to) && Math.abs(to - this.video.currentTime) > 0.5) this.#seek(to);
    this.video.play().catch(() => {});
  }

  /** `{ latencies, stalls }` since the last call. */
  take() {
    const taken = { latencies: this.#latencies, stalls: this.#stalls };
    this.#latencies = [];
    this.#stalls = 0;
    return taken;
  }

  /** What is played: `{ size, codec, bps, dropped }`. */
  facts() {
    const { videoWidth: width, videoHeight: height } = this.video;
    const level = this.#hls?.levels[this.#hls.currentLevel] ?? this.#hls?.levels[0];
    return {
      size: width > 0 ? `${width}x${height}` : "",
      codec: level?.attrs.CODECS ?? [level?.videoCodec, level?.audioCodec].filter(Boolean).join(", "),
      bps: this.#rate.bps || level?.bitrate || 0,
      dropped: this.video.getVideoPlaybackQuality?.().droppedVideoFrames ?? 0,
    };
  }

  #begin() {
    if (this.engine === "none") return this.#say("this browser plays no HLS");
    // It begins at live, wherever it was.
    this.past = false;
    this.#seen = this.#standing = this.#away = false;
    this.#last = { at: performance.now(), time: -1, moved: performance.now(), sampled: 0 };
    this.#began = { at: 0, jumped: -Infinity, jumps: 0 };
    this.video.playbackRate = 1;
    this.#say("loading");
    if (this.engine === "browser") this.video.src = this.url;
    else this.#beginHls();
    this.video.play().catch(() => {});
  }

  #beginHls() {
    const { Hls } = globalThis;
    const hls = this.#hls = new Hls({
      lowLatencyMode: this.lowLatency,
      // All of this is done here: its own needs a second of buffer, which low latency does not have.
      maxLiveSyncPlaybackRate: 1,
      liveSyncOnStallIncrease: 0.15,
      // It drops what was played when a segment begins to be shown, and forgets then that it has loaded the first parts of the
      // next one. At the end of that it takes no part until the segment behind it is whole.
      backBufferLength: Infinity,
      maxBufferLength: 20,
      // Who begins again does so from the start.
      manifestLoadPolicy: { default: { ...Hls.DefaultConfig.manifestLoadPolicy.default, errorRetry: null } },
    });
    hls.on(Hls.Events.MEDIA_ATTACHED, () => {
      if (!this.video.querySelector("source")) return;
      // ManagedMediaSource: AirPlay needs an address of its own.
      this.video.append(Object.assign(document.createElement("source"), { src: this.url, type: "application/vnd.apple.mpegurl" }));
    });
    let newest = Infinity;
    hls.on(Hls.Events.LEVEL_LOADED, (_, { details }) => {
      // Nothing that was listed is listed any more, e.g. after a crash: hls.js finds no place for what is new.
      if (details.startSN > newest + 1) setTimeout(() => { if (hls === this.#hls) this.#restart("the stream began anew"); });
      newest = details.endSN;
      this.#target.set(this.lowLatency ? details.partTarget : 0, details.holdBack || 3 * details.targetduration);
      // Where it seeks to by itself.
      hls.targetLatency = this.target;
    });
    hls.on(Hls.Events.FRAG_LOADED, (_, { frag, part }) => {
      const of = part ?? frag;
      if (frag.sn === "initSegment" || !(of.duration > 0)) return;
      this.#rate.bytes += of.stats.loaded;
      this.#rate.seconds += of.duration;
      if (this.#rate.seconds < 4) return;
      this.#rate = { bytes: 0, seconds: 0, bps: (8 * this.#rate.bytes) / this.#rate.seconds };
    });
    hls.on(Hls.Events.FRAG_BUFFERED, (_, { frag, part }) => this.#drop(frag, part));
    hls.on(Hls.Events.ERROR, (_, error) => this.#failed(error));
    hls.loadSource(this.url);
    hls.attachMedia(this.video);
  }

  /** Drops what was played long ago, while no segment is loaded in part. */
  #drop(frag, part) {
    const { buffered, currentTime } = this.video, list = this.#hls?.latestLevelDetails;
    // Where a part of it follows, it was listed before the segment was.
    const follows = ({ fragment, index }) => fragment.sn === frag.sn && index > part.index;
    const isWhole = !part || (frag.sn <= (list?.endSN ?? -1) && !list.partList?.some(follows));
    if (!isWhole || buffered.length === 0 || currentTime - buffered.start(0) < 1.5 * BACK) return;
    this.#hls.trigger(globalThis.Hls.Events.BUFFER_FLUSHING, { startOffset: 0, endOffset: currentTime - BACK, type: null });
  }

  #failed({ fatal, type, details, response }) {
    if (!fatal) return;
    const codec = /IncompatibleCodecs|AddCodec|bufferIncompatible/.test(details);
    if (codec) return this.#restart(`this browser can't decode the stream's codec`);
    const now = performance.now();
    if (type === globalThis.Hls.ErrorTypes.MEDIA_ERROR && now - this.#recovered > 10_000) {
      this.#recovered = now;
      this.#hls.recoverMediaError();
      return;
    }
    if (response?.code === 401 || response?.code === 403) this.#restart("not allowed: the key is wrong");
    else if (response?.code >= 400) this.#restart("not live at the moment", NOT_LIVE);
    else this.#restart(type === "networkError" ? "the module does not answer" : "playing failed");
  }

  /** Begins again after a while; the first time at once. */
  #restart(why, most = PATIENCE.most) {
    clearTimeout(this.#again);
    this.#end();
    const wait = Math.min(most, this.#tries === 0 ? 0 : PATIENCE.least * 2 ** (this.#tries - 1));
    this.#tries += 1;
    this.#say(`${why}; tried again`);
    this.#again = setTimeout(() => this.#begin(), wait);
  }

  #end() {
    this.#hls?.destroy();
    this.#hls = null;
    this.latency = NaN;
  }

  #say(state) {
    if (state === this.state) return;
    this.state = state;
    this.changed(this);
  }

  #seek(to) {
    this.#own = true;
    this.video.currentTime = to;
    this.#last.time = to;
  }

  /** The viewer's own seek, far back, is a wish to stay there. hls.js seeks as well, over holes and out of a stall. */
  #sought() {
    if (this.#own) { this.#own = false; return; }
    if (!this.#seen) return;
    const { currentTime: to } = this.video;
    const past = wantsPast({ from: this.#last.time, to, live: this.#livePosition(), past: this.past });
    if (past === this.past) return;
    this.past = past;
    this.changed(this);
  }

  #livePosition() {
    const { seekable } = this.video;
    if (this.#hls) return this.#hls.liveSyncPosition ?? NaN;
    return seekable.length > 0 ? seekable.end(seekable.length - 1) - 3 : NaN;
  }

  /** Behind live, in seconds. */
  #behind() {
    const now = Date.now() + this.offset();
    const { video } = this;
    if (this.#hls) {
      const date = this.#hls.playingDate?.getTime() ?? NaN;
      const edge = this.#hls.latestLevelDetails;
      return behind({ byClock: (now - date) / 1000, byEdge: edge ? edge.edge + edge.age - video.currentTime : NaN });
    }
    const start = video.getStartDate?.().getTime() ?? NaN;
    const { seekable } = video;
    const byEdge = seekable.length > 0 ? seekable.end(seekable.length - 1) - video.currentTime : NaN;
    return behind({ byClock: (now - start) / 1000 - video.currentTime, byEdge });
  }

  #tick() {
    const { video } = this, now = performance.now(), last = this.#last;
    const slept = now - last.at > SLEPT;
    last.at = now;
    if (this.engine === "none" || (this.engine === "hls.js" && !this.#hls)) return;
    if (slept && !video.paused && !this.past) {
      // A page that was frozen has requests that never end.
      if (!document.hidden) this.#restart("woken up");
      return;
    }
    if (video.currentTime !== last.time) {
      if (!this.#seen && last.time > 0) this.#seen = true;
      if (this.#standing && now - last.moved > STALL) this.#standing = false;
      last.time = video.currentTime;
      last.moved = now;
      this.#moves(now);
      return;
    }
    if (video.paused) {
      last.moved = now;
      if (this.#seen) this.#say("paused");
      return;
    }
    this.#stands(now);
  }

  #moves(now) {
    const { video } = this;
    this.#standing = this.#away = false;
    if (!this.#seen) return;
    this.#tries = 0;
    this.#say(this.past ? "playing the past" : "playing");
    this.latency = this.#behind();
    if (now - this.#last.sampled >= 1000) {
      this.#last.sampled = now;
      if (!this.past && Number.isFinite(this.latency) && this.#latencies.length < 10) this.#latencies.push(this.latency);
    }
    if (this.past || video.seeking) return;
    if (Math.abs(this.latency - this.target) < 0.1) this.#target.look(this.#ahead(), now / 1000);
    this.#settle(now);
  }

  /** A step towards the target: none, another speed, a jump. */
  #settle(now) {
    const { video } = this, began = this.#began;
    if (!this.#hls || this.past) return;
    began.at ||= now;
    const begun = began.jumps < JUMPS.first && now - began.at < JUMPS.begun;
    const mayJump = now - began.jumped > (begun ? JUMPS.soon : JUMPS.later);
    const latency = this.#behind(), ahead = this.#ahead();
    const step = steer({ latency, target: this.target, ahead, rate: video.playbackRate, mayJump, begun });
    if (step.jump || (step.seek && now - began.jumped > JUMPING)) {
      began.jumps += 1;
      began.jumped = this.#last.moved = now;
      if (step.jump) this.#seek(video.currentTime + step.jump);
      else this.toLive();
    } else if (step.rate && Math.abs(video.playbackRate - step.rate) > 0.001) video.playbackRate = step.rate;
  }

  #stands(now) {
    const still = now - this.#last.moved;
    if (now - this.#began.jumped < JUMPING) return;
    if (this.#seen && !this.#standing && still > STALL && !document.hidden) {
      this.#standing = true;
      this.#stalls += 1;
      this.stalls += 1;
      this.#target.stalled(now / 1000, this.#ahead());
      this.video.playbackRate = 1;
      this.#say("waiting for pictures");
    }
    if (this.#standing && !this.#away && this.#isGap()) {
      this.#away = true;
      this.stalls -= 1;
      this.#stalls = Math.max(0, this.#stalls - 1);
      this.#target.forgive();
      // What comes back begins like a stream that is new.
      this.#began = { at: 0, jumped: -Infinity, jumps: 0 };
      this.#say("the publisher is away");
    }
    const next = this.#nextBuffered();
    if (still > STALL && Number.isFinite(next)) this.#seek(next);
    else if (still > STUCK && !this.#isGap()) this.#restart("no pictures came");
  }

  /** The newest that the playlist lists is a gap. */
  #isGap() {
    const list = this.#hls?.latestLevelDetails;
    return Boolean((list?.partList?.at(-1) ?? list?.fragments.at(-1))?.gap);
  }

  /** Where the buffer goes on behind a hole, e.g. where the publisher was away. */
  #nextBuffered() {
    const { buffered, currentTime } = this.video;
    for (let i = 0; i < buffered.length; i += 1) {
      if (buffered.start(i) > currentTime && buffered.end(i) - buffered.start(i) > 0.1) return buffered.start(i) + 0.01;
    }
    return NaN;
  }

  #ahead() {
    const { buffered, currentTime } = this.video;
    for (let i = 0; i < buffered.length; i += 1) {
      if (buffered.start(i) <= currentTime && currentTime <= buffered.end(i)) return buffered.end(i) - currentTime;
    }
    return 0;
  }
}
