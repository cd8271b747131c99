"""A module's twin: IoT Hub's and edgeHub's rules for what a module reports."""

import json
import re

#: IoT Hub's limit for all of `reported`, and what modules keep to.
HUB_BYTES, PROMISED_BYTES = 32 * 1024, 30 * 1024


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def merge(base, patch):
    """JSON merge patch: null deletes, objects merge, all else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def measure(value):
    """IoT Hub's measure: bytes of keys and texts, 8 a number, 4 a bool."""
    match value:
        case dict():
            return sum(len(key.encode()) + measure(item) for key, item in value.items())
        case list():
            return sum(map(measure, value))
        case str():
            return len(value.encode())
        case bool():
            return 4
        case int() | float():
            return 8
    return 0


def _pairs(pairs):
    names = [name for name, _ in pairs]
    if len(names) != len(set(names)):
        raise ValueError(f"a key twice: {sorted(names)}")
    return dict(pairs)


def parse(text):
    """Strict JSON: no NaN, no key twice."""

    def constant(name):
        raise ValueError(name)

    return json.loads(text, object_pairs_hook=_pairs, parse_constant=constant)


def refusals(payload):
    """(patch, why edgeHub would refuse it)."""
    try:
        patch = parse(payload)
    except ValueError as error:
        return None, [f"not JSON: {error}"]
    if not isinstance(patch, dict):
        return None, ["not an object"]
    why = []
    if len(payload) > HUB_BYTES:
        why.append(f"patch of {len(payload)} bytes")
    if "$version" in patch:
        why.append("patch holds $version")
    _walk(patch, "", 0, why, False)
    return patch, why


def _walk(value, path, depth, why, in_array):
    if depth > 10:
        why.append(f"{path}: depth over 10")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not key or len(key.encode()) > 1024 or re.search(r"[.$#\s\x00-\x1f\x7f]", key):
                why.append(f"{path}: key {key!r}")
            _walk(item, f"{path}/{key}", depth + 1, why, in_array)
    elif isinstance(value, list):
        for item in value:
            _walk(item, f"{path}[]", depth + 1, why, True)
    elif isinstance(value, str) and len(value.encode()) > 4096:
        why.append(f"{path}: text of {len(value.encode())} bytes")
    elif isinstance(value, int) and not isinstance(value, bool) and not -(2**52) <= value < 2**52:
        why.append(f"{path}: {value}")
    elif value is None and in_array:
        why.append(f"{path}: null in an array")


def unchanged(patch, held, path=""):
    """Paths of a patch that say what is held already."""
    for key, item in patch.items():
        here = f"{path}/{key}"
        if isinstance(item, dict) and isinstance(held.get(key), dict):
            yield from unchanged(item, held[key], here) if item else [here]
        elif (item is None and key not in held) or (item is not None and held.get(key) == item):
            yield here


class Twin:
    """Desired and reported, with their versions."""

    def __init__(self, desired):
        self.desired, self.version = desired, 1
        self.reported, self.reported_version = {}, 1

    def change(self, patch):
        """Applies a change of the operator's and says what is pushed to the module."""
        self.desired = merge(self.desired, patch)
        self.version += 1
        return patch | {"$version": self.version}

    def document(self):
        return {
            "desired": self.desired | {"$version": self.version},
            "reported": self.reported | {"$version": self.reported_version},
        }
