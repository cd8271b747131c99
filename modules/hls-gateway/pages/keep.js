// How a live player keeps near the live edge: figures in, what to do out. No player is named here.

/** Behind the target by this much: faster. In seconds, as all times here. */
const LATE = 0.06;
/** By this much: to the target at once, where the pictures for it are there; and where they are not. */
const JUMP = 0.8, FAR = 2.5;
/** The same just after the beginning, when a player is where its first pictures were. */
const FIRST_JUMP = 0.2;
/** So much is left ahead of the playhead after a jump. */
const KEPT = 0.15;
/** Nearer than the target by this much: slower, so that the buffer is not run dry. */
const EARLY = 0.08;
/** A correction goes on until this near. */
const THERE = 0.015;
/** Limits of speed: what is heard and seen as normal. */
const SLOWEST = 0.95, FASTEST = 1.1;
/** Less than this ahead: never faster. */
const THIN = 0.1;

/**
 * One look at a player: `latency` behind live, `target` for it, `ahead` of the playhead in the buffer, the present
 * `rate`, whether a jump `mayJump` and whether it has `begun` just now. Returns `{ rate }`, `{ jump }`: so far forward,
 * within what is buffered, or `{ seek: true }`, where no speed catches up in reasonable time.
 */
export function steer({ latency, target, ahead, rate, mayJump = false, begun = false }) {
  if (!Number.isFinite(latency) || !Number.isFinite(target)) return { rate: 1 };
  const late = latency - target;
  if (mayJump && late > (begun ? FIRST_JUMP : JUMP) && ahead - late > KEPT) return { jump: late };
  if (late > FAR) return { seek: true };
  if (late > (rate > 1 ? THERE : LATE)) {
    return { rate: ahead < THIN ? 1 : Math.min(FASTEST, 1.02 + late * 0.16) };
  }
  if (late < -(rate < 1 ? THERE : EARLY)) return { rate: Math.max(SLOWEST, 0.99 + late * 0.2) };
  return { rate: 1 };
}

/** What the buffer may not fall below, and what is more than it takes, at its lowest in so many seconds. */
const LOW = { least: 0.12, plenty: 0.26, within: 10 };

/** After a stall with less than `dry` ahead: so much further behind, up to `most`; a `back` nearer for each `quiet` time. */
const STALLED = { dry: 0.2, step: 0.15, most: 1, back: 0.05, quiet: 20 };

/**
 * How near live to play: as near as the parts allow, further where the buffer is nearly run dry and after each stall
 * that it has run dry in, and slowly nearer again.
 */
export class Target {
  #base = NaN;
  #least = NaN;
  /** Of what the buffer says, and of stalls. */
  #trimmed = 0;
  #raised = 0;
  /** What the last stall added. */
  #step = 0;
  #at = 0;
  #low = { ahead: Infinity, since: NaN };

  /** `part`: the longest part; `hold`: what the playlist asks for where it has no parts. */
  set(part, hold) {
    this.#base = part > 0 ? Math.max(0.4, part * 2.2) : hold;
    this.#least = part > 0 ? Math.max(0.36, part * 1.9) : hold;
  }

  /** What is `ahead` in the buffer of a player that is at its target, `now`, in seconds. */
  look(ahead, now) {
    const low = this.#low;
    if (!(now - low.since < LOW.within)) {
      if (low.ahead < LOW.least) this.#trimmed = Math.min(0.5, this.#trimmed + 0.04);
      else if (low.ahead > LOW.plenty && low.ahead < Infinity) this.#trimmed -= 0.02;
      this.#trimmed = Math.max(this.#least - this.#base, this.#trimmed);
      this.#low = { ahead, since: now };
    }
    this.#low.ahead = Math.min(this.#low.ahead, ahead);
  }

  /** The picture stands with so much `ahead`. Where that is enough, being further behind helps nothing. */
  stalled(now, ahead) {
    const isDry = ahead < STALLED.dry;
    this.#step = isDry ? Math.min(STALLED.step, STALLED.most - this.#raised) : 0;
    this.#raised += this.#step;
    if (isDry) this.#at = now;
  }

  /** The last stall was none. */
  forgive() {
    this.#raised = Math.max(0, this.#raised - this.#step);
    this.#step = 0;
  }

  /** `now`: in seconds. */
  value(now) {
    if (this.#raised > 0 && now - this.#at > STALLED.quiet) {
      this.#raised = Math.max(0, this.#raised - STALLED.back);
      this.#at = now;
    }
    return this.#base + this.#trimmed + this.#raised;
  }
}

/** Nobody goes so little back from live to stay there. */
const PAST = 4;

/**
 * Whether the viewer wants to stay behind live, after a seek that the page has not made, `from` where the picture was
 * `to` where it goes. A player seeks by itself over holes and out of stalls, and only ever forward: that says nothing new.
 */
export function wantsPast({ from, to, live, past }) {
  if (!Number.isFinite(live) || to >= live - PAST) return false;
  return past || to < from;
}

/**
 * How far behind live the picture is: by the wall clock that the stream carries, but never less than the playlist's
 * edge says. A stream's clock runs late where its first pictures came late; one that stepped, or a viewer's that is
 * wrong, is far from the edge and is not believed.
 */
export function behind({ byClock, byEdge }) {
  if (!Number.isFinite(byEdge)) return byClock;
  return byClock > byEdge && byClock < byEdge + 2 ? byClock : byEdge;
}
