"""What a module is put through. Each is a coroutine with a sentence for a name; its bench's record must stay empty."""

from dataclasses import dataclass, field

ALL = []


@dataclass
class Scenario:
    name: str
    play: object
    setup: dict = field(default_factory=dict)
    long: bool = False


def scenario(long=False, **setup):
    """Registers a coroutine; `setup` goes to its Bench. Long ones are started first."""

    def register(play):
        ALL.append(Scenario(play.__name__.replace("_", " "), play, setup, long))
        return play

    return register


from . import clock, connecting, desired, methods, process, reporting, streams, telemetry  # noqa: E402, F401
