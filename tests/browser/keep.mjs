// How the page keeps near live, without a browser: a player whose parts come every 200 ms is steered a quarter of a second
// at a time.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const source = readFileSync(new URL("../../modules/hls-gateway/pages/keep.js", import.meta.url));
const { Target, behind, steer, wantsPast } = await import(`data:text/javascript;base64,${source.toString("base64")}`);
const PART = 0.2, TICK = 0.05, LOOK = 5;

/** Plays for so many seconds from `late` behind live; parts are there `delay(time)` after their end. */
function play({ late, seconds, delay = () => 0.05, mayJump = () => false, target = new Target() }) {
  target.set(PART * 7 / 6, 6);
  let at = -late, rate = 1, stalls = 0, standing = false, edge = -Infinity, jumps = 0;
  const seen = [];
  for (let tick = 0; tick * TICK < seconds; tick += 1) {
    const now = tick * TICK;
    edge = Math.max(edge, Math.floor((now - delay(now)) / PART) * PART);
    const ahead = Math.min(edge - at, 20), latency = now - at;
    if (ahead <= 0) {
      if (!standing) { stalls += 1; target.stalled(now, ahead); }
      standing = true;
      continue;
    }
    standing = false;
    at += Math.min(ahead, TICK * rate);
    if (tick % LOOK > 0) continue;
    seen.push(latency);
    if (Math.abs(latency - target.value(now)) < 0.1) target.look(ahead, now);
    const step = steer({ latency, target: target.value(now), ahead, rate, mayJump: mayJump(now), begun: now < 5 });
    if (step.jump) { at += step.jump; jumps += 1; } else rate = step.rate ?? 1;
    assert.ok(rate >= 0.95 && rate <= 1.1);
  }
  return { seen, stalls, jumps, target, last: seen.slice(-20) };
}

test("a player that begins late is at its target with the first look", () => {
  const { seen, stalls, jumps, target } = play({ late: 2, seconds: 10, mayJump: () => true });
  assert.ok(Math.abs(seen[1] - target.value(0)) < 0.1, `${seen[1]}`);
  assert.ok(jumps === 1 && stalls === 0);
});

test("without a jump it catches up by its speed, and never runs dry", () => {
  const { last, stalls, target } = play({ late: 2, seconds: 60 });
  for (const latency of last) assert.ok(Math.abs(latency - target.value(60)) < 0.1, `${latency}`);
  assert.equal(stalls, 0);
});

test("it does not jump to where nothing is buffered", () => {
  const { jumps } = play({ late: 2, seconds: 2, delay: () => 2, mayJump: () => true });
  assert.equal(jumps, 0);
});

test("it stays further behind where parts come late now and then, and stalls no more", () => {
  const target = new Target();
  const late = (now) => (now % 7 < 0.5 ? 0.45 : 0.05);
  play({ late: 0.5, seconds: 120, delay: late, target });
  const { stalls, last } = play({ late: target.value(0), seconds: 60, delay: late, target });
  assert.equal(stalls, 0);
  assert.ok(last.every((latency) => latency < 1.5), `${last}`);
});

test("parts that come evenly bring it nearer, to a bound", () => {
  const { target } = play({ late: 0.6, seconds: 300, delay: () => 0 });
  assert.ok(target.value(300) >= 0.36 && target.value(300) <= 0.52, `${target.value(300)}`);
});

test("a stall that was the publisher's takes nothing from the viewer", () => {
  const target = new Target();
  target.set(PART, 6);
  const before = target.value(0);
  target.stalled(1, 0);
  assert.ok(target.value(1) > before);
  target.forgive();
  assert.equal(target.value(1), before);
  target.forgive();
  assert.equal(target.value(1), before);
});

test("a stall with pictures enough ahead was the decoder's, and moves nothing", () => {
  const target = new Target();
  target.set(PART, 6);
  const before = target.value(0);
  target.stalled(1, 0.5);
  assert.equal(target.value(1), before);
  target.stalled(2, 0.1);
  target.stalled(3, 0.5);
  target.forgive();
  assert.ok(target.value(3) > before, "forgiven is what the last stall has added: nothing");
});

test("after many stalls it is no more than a second further behind, and comes back within minutes", () => {
  const target = new Target();
  target.set(PART, 6);
  const before = target.value(0);
  for (let stall = 0; stall < 20; stall += 1) target.stalled(stall, 0);
  assert.ok(Math.abs(target.value(20) - before - 1) < 1e-9, `${target.value(20)}`);
  let last = Infinity;
  for (let now = 20; now < 20 + 21 * 25; now += 1) {
    assert.ok(target.value(now) <= last);
    last = target.value(now);
  }
  assert.ok(Math.abs(last - before) < 1e-9, `${last}`);
});

test("a wall clock that can't be true is not believed", () => {
  assert.equal(behind({ byClock: 0.7, byEdge: 0.5 }), 0.7);
  assert.equal(behind({ byClock: 3600, byEdge: 0.5 }), 0.5);
  assert.equal(behind({ byClock: -5, byEdge: 0.5 }), 0.5);
  assert.equal(behind({ byClock: 0.7, byEdge: NaN }), 0.7);
});

test("only who goes back wants the past, and who comes near live wants it no more", () => {
  const live = 100;
  assert.equal(wantsPast({ from: 99, to: 60, live, past: false }), true);
  // Over a hole or out of a stall, as hls.js does by itself far behind live.
  assert.equal(wantsPast({ from: 90, to: 90.1, live, past: false }), false);
  assert.equal(wantsPast({ from: 80, to: 92, live, past: false }), false);
  // The same in the past, and on within it.
  assert.equal(wantsPast({ from: 60, to: 60.1, live, past: true }), true);
  assert.equal(wantsPast({ from: 60, to: 80, live, past: true }), true);
  assert.equal(wantsPast({ from: 60, to: 99, live, past: true }), false);
  // A little back is not far from live.
  assert.equal(wantsPast({ from: 99, to: 97, live, past: false }), false);
  // Dragged back in small steps.
  let from = 99, past = false;
  for (let to = 98.7; to > 70; from = to, to -= 0.3) past = wantsPast({ from, to, live, past });
  assert.equal(past, true);
  assert.equal(wantsPast({ from: 60, to: 30, live: NaN, past: false }), false);
});
