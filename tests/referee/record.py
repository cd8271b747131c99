"""What the real edgeHub or IoT Hub would have refused, dropped, closed the connection for, or punished."""

import time


class Record:
    """Every violation, in order. A scenario has passed when this is empty."""

    def __init__(self):
        self.violations = []
        #: Texts that must never be seen in anything the module sends or writes.
        self.secrets = []

    def add(self, rule, detail=""):
        """Notes that `rule` was broken; `detail` says by what."""
        self.violations.append((round(time.monotonic(), 2), rule, str(detail)[:400]))

    def check(self, holds, rule, detail=""):
        """Notes `rule` unless it holds; says whether it does."""
        if not holds:
            self.add(rule, detail)
        return holds

    def scan(self, where, data):
        """Looks for secrets in what was seen."""
        text = data if isinstance(data, str) else data.decode("utf-8", "replace")
        for secret in self.secrets:
            if secret in text:
                self.add("secret shown", f"{where}: {text}")

    def forget(self, rule):
        """Takes back what was noted under a rule."""
        self.violations = [violation for violation in self.violations if violation[1] != rule]

    def rules(self):
        """The rules that were broken, each once."""
        return sorted({rule for _, rule, _ in self.violations})
