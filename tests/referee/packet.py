"""MQTT 3.1.1 packets as a server reads and writes them, as strictly as the specification allows."""

import struct
from dataclasses import dataclass, field

#: edgeHub's limit for a whole packet.
MAX_PACKET = 256 * 1024

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 1, 2, 3, 4, 8, 9
UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = 10, 11, 12, 13, 14


class Malformed(Exception):
    """Bytes that are no MQTT 3.1.1; a server closes the connection."""


@dataclass
class Connect:
    client_id: str
    user: str | None
    password: str | None
    clean: bool
    keep_alive: int
    will: bool


@dataclass
class Publish:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    id: int | None


@dataclass
class Other:
    """Any other packet, with its identifier and filters where it has them."""

    kind: int
    id: int | None = None
    filters: list = field(default_factory=list)


class _Body:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise Malformed("packet ends early")
        part = self.data[self.at : self.at + count]
        self.at += count
        return part

    def number(self):
        return struct.unpack(">H", self.take(2))[0]

    def text(self):
        try:
            text = self.take(self.number()).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed("text is not UTF-8") from error
        if "\0" in text:
            raise Malformed("text holds U+0000")
        return text

    def rest(self):
        return self.take(len(self.data) - self.at)

    def end(self):
        if self.at != len(self.data):
            raise Malformed("bytes after the end of a packet")


async def read(reader):
    """The next packet, or None when the other side has closed."""
    first = await reader.read(1)
    if not first:
        return None
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
        if shift > 21:
            raise Malformed("length over four bytes")
    if length + 1 + shift // 7 > MAX_PACKET:
        raise Malformed(f"packet of {length} bytes is over edgeHub's {MAX_PACKET}")
    return decode(first[0] >> 4, first[0] & 15, await reader.readexactly(length))


def decode(kind, flags, data):
    body = _Body(data)
    if kind == PUBLISH:
        return _publish(flags, body)
    if flags != (2 if kind in (SUBSCRIBE, UNSUBSCRIBE) else 0):
        raise Malformed(f"packet type {kind} with flags {flags}")
    if kind == CONNECT:
        return _connect(body)
    packet = Other(kind)
    if kind in (PUBACK, SUBSCRIBE, UNSUBSCRIBE):
        packet.id = body.number()
        if packet.id == 0:
            raise Malformed("packet identifier 0")
    if kind in (SUBSCRIBE, UNSUBSCRIBE):
        while body.at < len(data):
            name = body.text()
            packet.filters.append((name, body.take(1)[0] if kind == SUBSCRIBE else None))
        if not packet.filters:
            raise Malformed("subscription without a filter")
    elif kind not in (PUBACK, PINGREQ, DISCONNECT):
        raise Malformed(f"packet type {kind} from a client")
    body.end()
    return packet


def _publish(flags, body):
    qos = flags >> 1 & 3
    topic = body.text()
    if qos == 3 or not topic or "#" in topic or "+" in topic:
        raise Malformed(f"publish with QoS {qos} to {topic!r}")
    number = body.number() if qos else None
    if number == 0:
        raise Malformed("packet identifier 0")
    return Publish(topic, body.rest(), qos, bool(flags & 1), bool(flags & 8), number)


def _connect(body):
    if body.text() != "MQTT" or body.take(1)[0] != 4:
        raise Malformed("not MQTT 3.1.1")
    flags = body.take(1)[0]
    keep_alive = body.number()
    if flags & 1:
        raise Malformed("reserved flag of CONNECT")
    client_id = body.text()
    if flags & 4:
        body.text(), body.take(body.number())
    user = body.text() if flags & 128 else None
    password = body.text() if flags & 64 else None
    body.end()
    return Connect(client_id, user, password, bool(flags & 2), keep_alive, bool(flags & 4))


def encode(kind, body=b"", flags=0):
    """A packet's bytes."""
    length, head = len(body), bytearray([kind << 4 | flags])
    while True:
        length, low = divmod(length, 128)
        head.append(low | (128 if length else 0))
        if not length:
            return bytes(head) + body


def publish(topic, payload, qos=0, number=0, flags=0):
    """A PUBLISH's bytes."""
    name = topic.encode()
    body = struct.pack(">H", len(name)) + name + (struct.pack(">H", number) if qos else b"") + payload
    return encode(PUBLISH, body, qos << 1 | flags)
