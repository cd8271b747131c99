"""What a module is put through. Each is a coroutine with a sentence for a name; its bench's record must stay empty."""

from dataclasses import dataclass, field

ALL = []


@dataclass
class Scenario:
    name: str
    play: object
    setup: dict = field(default_factory=dict)
    seconds: int = 0

    @property
    def long(self):
        """Whether it is left out of a short run."""
        return self.seconds > 60


def scenario(seconds=0, **setup):
    """Registers a coroutine; `setup` goes to its Bench. Those that take many `seconds` are started first."""

    def register(play):
        ALL.append(Scenario(play.__name__.replace("_", " "), play, setup, seconds))
        return play

    return register


from . import clock, connecting, desired, methods, process, reporting, streams, telemetry  # noqa: E402, F401
