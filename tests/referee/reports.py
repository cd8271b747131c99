"""The referee of reported properties: what a hub accepts, at the pace that modules promise."""

import time

import lag
import shape
from twin import HUB_BYTES, PROMISED_BYTES, compact, measure, merge, refusals, unchanged

#: Seconds that a report may be late or early by, beside what this process is.
SLACK = 0.35


class Reports:
    """Every report of one module, over all its connections."""

    def __init__(self, record, twin):
        self.record, self.twin = record, twin
        #: (when, patch), as they came.
        self.all = []
        #: When desired properties last reached the module.
        self.changed = -1e9
        #: The next patch may repeat what is held: after a start, a refusal, or a lost answer.
        self.may_repeat = True
        #: The process has had an answer to a report.
        self.told = False
        self._last = -1e9
        self._states = {}

    def process_started(self):
        """Another process reports from now on; it sends the full picture once."""
        self.may_repeat, self.told = True, False
        self._states.clear()
        self._last = -1e9

    def take(self, payload):
        """Judges a patch; says what edgeHub would answer, and the merged document when it accepts."""
        now = time.monotonic()
        record = self.record
        patch, why = refusals(payload)
        for reason in why:
            record.add("report refused", reason)
        if patch is None:
            return 500, None
        self.all.append((now, patch))
        self._pace(now, patch)
        if not patch:
            record.add("report says nothing")
        if not self.may_repeat:
            for path in unchanged(patch, self.twin.reported):
                record.add("report says what is held", path)
        merged = merge(self.twin.reported, patch)
        self._merged(merged)
        self._flapping(now, merged)
        return (400 if why else 204), merged

    def _pace(self, now, patch):
        since, late = now - self._last, lag.worst()
        # What became of a change is told once it is known, however long the change took.
        answer = "desiredVersion" in (patch.get("config") or {})
        fresh = answer or now - self.changed < 1 + SLACK + late
        if since < 5 - SLACK / 3 - late and not fresh:
            self.record.add(
                "report too soon",
                f"{since:.2f} s after the last, {now - self.changed:.2f} s after a change: {compact(patch)}",
            )
        self._last = now

    def _merged(self, merged):
        size = len(compact(merged).encode())
        self.record.check(size <= PROMISED_BYTES, "reported over 30 KiB", size)
        self.record.check(measure(merged) <= HUB_BYTES, "reported over IoT Hub's 32 KB", measure(merged))
        for fault in shape.reported(merged):
            self.record.add("reported shape", fault)

    def _flapping(self, now, merged):
        """The same state there and back and there again, within a minute."""
        places = {}
        for name, flow in merged.get("flows", {}).items():
            places[name] = flow.get("state")
            places[f"{name}.input"] = flow.get("input", {}).get("state")
            for output, item in flow.get("outputs", {}).items():
                places[f"{name}.outputs.{output}"] = item.get("state")
        for place, state in places.items():
            past = self._states.setdefault(place, [])
            if past and past[-1][1] == state:
                continue
            past.append((now, state))
            recent = [entry for entry in past if now - entry[0] < 60 - SLACK - lag.worst()]
            if len(recent) > 3 and now - self.changed > 60:
                self.record.add("flapping state reported", f"{place}: {[entry[1] for entry in recent]}")
