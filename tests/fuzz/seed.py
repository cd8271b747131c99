#!/usr/bin/env python3
"""Makes the corpora that fuzzing starts from: tests/fuzz/seed.py DIR makes DIR/TARGET/* for each target.

Small clips of every shape from ffmpeg, taken apart; FFMPEG9 may name a current ffmpeg for H.265, AV1, Opus.
"""

import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(sys.argv[1])
SOURCES = "-f lavfi -i testsrc2=size=64x64:rate=10 -f lavfi -i sine=sample_rate=48000 -t 0.6"
CLIPS = [
    ("ffmpeg", "h264", "-c:v libx264 -bf 3 -g 4 -c:a aac -movflags +faststart"),
    ("ffmpeg", "fragmented", "-c:v libx264 -g 4 -c:a aac -movflags frag_keyframe+empty_moov+default_base_moof"),
    ("ffmpeg", "audio", "-vn -c:a aac"),
    ("FFMPEG9", "h265", "-c:v libx265 -x265-params log-level=error -tag:v hvc1 -c:a aac"),
    ("FFMPEG9", "av1", "-c:v libsvtav1 -preset 12 -c:a libopus"),
]


def put(target, name, content):
    folder = ROOT / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def boxes(file, kind):
    """The bodies of all boxes of a kind, wherever they are."""
    at = file.find(kind)
    while at >= 4:
        (size,) = struct.unpack(">I", file[at - 4 : at])
        yield file[at + 4 : at - 4 + size]
        at = file.find(kind, at + 4)


def tags(flv):
    at = 13
    while at + 11 <= len(flv):
        size = int.from_bytes(flv[at + 1 : at + 4], "big")
        yield flv[at], flv[at + 11 : at + 11 + size]
        at += 11 + size + 4


def chunks(kind, body, csid=3, stream=1, time=0):
    """One message as a type 0 chunk and type 3 chunks of 128 bytes."""
    head = bytes([csid]) + time.to_bytes(3, "big") + len(body).to_bytes(3, "big") + bytes([kind])
    out = head + struct.pack("<I", stream)
    return out + bytes([0xC0 | csid]).join(body[i : i + 128] for i in range(0, len(body), 128) or [0])


def text(value):
    return b"\x02" + struct.pack(">H", len(value)) + value


def number(value):
    return b"\x00" + struct.pack(">d", value)


def command(name, transaction, *arguments):
    return text(name) + number(transaction) + b"".join(arguments)


def commands():
    app = b"\x03\x00\x03app" + text(b"live") + b"\x00\x05tcUrl" + text(b"rtmp://127.0.0.1/live") + b"\x00\x00\x09"
    yield "connect", command(b"connect", 1, app), 0
    yield "create", command(b"createStream", 2, b"\x05"), 0
    yield "publish", command(b"publish", 3, b"\x05", text(b"cam?key=k"), text(b"live")), 1
    yield "play", command(b"play", 3, b"\x05", text(b"cam"), number(-2000)), 1
    yield "delete", command(b"deleteStream", 4, b"\x05", number(1)), 0


def packets(format, *payloads):
    """RTP payloads for the target `depacketize`: each 40 ms after the one before, unless it is a tuple's later part."""
    out = bytes([format])
    for parts in payloads:
        parts = parts if isinstance(parts, tuple) else (parts,)
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            # Whether it ends a frame; 225 << 4 is 40 ms at 90 kHz.
            out += bytes([4 << 3 | last, 0 if index else 225]) + struct.pack(">H", len(part)) + part
    return out


def rtp_payloads():
    sps, pps = bytes.fromhex("67640014acd94141fb0110000003001000000303c0f14299 60".replace(" ", "")), bytes.fromhex("68ebe3cb22c0")
    together = b"\x78" + b"".join(struct.pack(">H", len(unit)) + unit for unit in (sps, pps))
    yield "h264", packets(0, (together, b"\x7c\x85\x88" + bytes(50), b"\x7c\x45" + bytes(50)), b"\x41\x9a" + bytes(20))
    yield "h265", packets(1, (b"\x60\x01\x00\x03\x40\x01\x0c", b"\x62\x01\x93\x80" + bytes(50), b"\x62\x01\x53" + bytes(50)))
    yield "av1", packets(2, (b"\x58\x0a\x0a\x00\x00\x00\x02\xaf\xff\x9b\x5f\x30\x08", b"\x90" + bytes(30)))
    yield "aac", packets(3, b"\x00\x20\x00\x50\x00\x28" + bytes(15), (b"\x00\x10\x01\x40" + bytes(20), b"\x00\x10\x01\x40" + bytes(20)))
    yield "aac-lbr", packets(4, b"\x00\x08\x14" + bytes(5))
    yield "latm", packets(5, b"\xff\x02" + bytes(257))
    yield "mpeg", packets(6, bytes(4) + (b"\xff\xfb\x14\x00" + bytes(92)) * 2)
    yield "opus", packets(7, b"\xfc" + bytes(40))


def rtcp():
    report = struct.pack(">BBHIQIII", 0x80, 200, 6, 7, 0xE8000000 << 32, 90000, 5, 5000)
    name = struct.pack(">BBHI", 0x81, 202, 3, 7) + b"\x01\x04fuzz\x00\x00"
    yield "report", report + name
    yield "bye", report + name + struct.pack(">BBHI", 0x81, 203, 1, 7)
    yield "receiver", struct.pack(">BBHI", 0x81, 201, 7, 8) + bytes(24)
    yield "packet", struct.pack(">BBHII", 0x90, 0xE0, 1, 2, 3) + b"\xbe\xde\x00\x01\x10\xaa\x00\x00" + bytes(20)


def request(method, *headers, control="", body=b""):
    lines = [f"{method} rtsp://127.0.0.1/live/cam{control} RTSP/1.0", "CSeq: 1", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines + ["", ""]).encode() + body


SDP = b"""v=0\r
o=- 0 0 IN IP4 127.0.0.1\r
s=cam\r
t=0 0\r
a=control:*\r
m=video 0 RTP/AVP 96\r
a=rtpmap:96 H264/90000\r
a=fmtp:96 packetization-mode=1;profile-level-id=42C01E;sprop-parameter-sets=Z0LAHtkDxWhAAAADAEAAAAwDxYuS,aMuMsg==\r
a=control:trackID=0\r
m=audio 0 RTP/AVP 97\r
a=rtpmap:97 MPEG4-GENERIC/48000/2\r
a=fmtp:97 streamtype=5;mode=AAC-hbr;config=1190;SizeLength=13;IndexLength=3;IndexDeltaLength=3\r
a=control:trackID=1\r
m=application 0 RTP/AVP 107\r
a=rtpmap:107 vnd.onvif.metadata/90000\r
a=sendonly\r
"""


def conversations():
    tcp, udp = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Transport: RTP/AVP;unicast;client_port=5000-5001"
    digest = 'Authorization: Digest username="a", realm="r", nonce="n", uri="*", response="0"'
    play = request("OPTIONS") + request("DESCRIBE", digest) + request("SETUP", tcp, control="/trackID=0")
    yield "play", play + request("PLAY", "Range: npt=0-") + b"$\x01\x00\x08" + bytes(8) + request("TEARDOWN")
    record = request("ANNOUNCE", "Content-Type: application/sdp", body=SDP)
    record += request("SETUP", udp + ";mode=record", control="/trackID=0") + request("RECORD")
    yield "record", record + request("GET_PARAMETER")
    yield "multicast", request("SETUP", "Transport: RTP/AVP;multicast", control="/trackID=0") + request("PAUSE")
    yield "tunnel", b"GET /live/cam HTTP/1.0\r\nx-sessioncookie: 1\r\nAccept: application/x-rtsp-tunnelled\r\n\r\n"
    yield "base64", b"T1BUSU9OUyAqIFJUU1AvMS4wDQo=Q1NlcTogMQ0KDQo="


def replies():
    def reply(cseq, *headers, status="200 OK"):
        return "\r\n".join([f"RTSP/1.0 {status}", f"CSeq: {cseq}", *headers, "", ""]).encode()

    challenge = 'WWW-Authenticate: Digest realm="r", nonce="n", algorithm=SHA-256, qop="auth"'
    start = reply(1, "Public: ANNOUNCE, SETUP, RECORD, GET_PARAMETER") + reply(2, challenge, status="401 Unauthorized")
    transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1"
    yield "record", b"\x0e" + start + reply(3) + reply(4, transport, "Session: 1;timeout=60") + reply(5)
    yield "elsewhere", b"\x0e" + reply(1) + reply(2, "Location: rtsp://192.0.2.1/", status="302 Found")


def main():
    for name, conversation in conversations():
        put("rtsp_server", name, conversation)
    for name, conversation in replies():
        put("rtsp_client", name, conversation)
    put("sdp", "camera", SDP)
    for name, payload in rtp_payloads():
        put("depacketize", name, payload)
    for name, packet in rtcp():
        put("rtp", name, packet)
    numbers = [65534, 65535, 1, 0, 2, 2, 3, 80, 81, 4, *range(82, 160), *range(10, 80)]
    put("reorder", "wrap", b"".join(struct.pack(">HB", number, 5) for number in numbers))
    session = {name: chunks(20, body, stream=stream) for name, body, stream in commands()}
    for name, body, _ in commands():
        put("amf0", name, body)
        put("chunk_reader", name, session[name])
    connect = session["connect"] + session["create"]
    put("server_session", "play", connect + session["play"] + session["delete"])
    put("server_session", "publish", connect + session["publish"])
    put("chunk_reader", "extended", b"\x03\xff\xff\xff\x00\x00\x81\x08\x01\x00\x00\x00\x01\x00\x00\x00" + bytes(128) + b"\xc3\x01\x00\x00\x00\x00")

    # Trusted up to where, and what is changed: nothing, the header, a tail that is cut off.
    put("recover", "whole", bytes([0]))
    put("recover", "trusted", bytes([255, 0, 36, ord("m"), 0, 37, ord("o")]))
    put("recover", "cut", bytes([0, 200]))

    with tempfile.TemporaryDirectory() as folder:
        for tool, name, encoding in CLIPS:
            tool = os.environ.get(tool, "" if tool.isupper() else tool)
            if not tool:
                continue
            mp4, flv = f"{folder}/{name}.mp4", f"{folder}/{name}.flv"
            base = [tool, "-hide_banner", "-nostdin", "-loglevel", "error", "-y"]
            quiet = {**os.environ, "SVT_LOG": "1"}
            subprocess.run(base + f"{SOURCES} {encoding} {mp4}".split(), check=True, env=quiet)
            subprocess.run(base + f"-i {mp4} -c copy -f flv {flv}".split(), check=True)
            file = Path(mp4).read_bytes()
            put("mp4", name, file)
            for kind in (b"avcC", b"hvcC", b"av1C", b"dOps", b"esds"):
                for body in boxes(file, kind):
                    # An AudioSpecificConfig lies behind the descriptors of `esds`.
                    put("avcc_hvcc", f"{name}-{kind.decode()}", body[-5:] if kind == b"esds" else body)
                    put("sps", f"{name}-{kind.decode()}", body[8:] if kind == b"avcC" else body[23 + 5 :])
            stream = connect + session["publish"]
            for index, (kind, body) in enumerate(tags(Path(flv).read_bytes())):
                if kind == 18:
                    put("amf0", f"{name}-metadata", body)
                elif index < 12:
                    put("flv_tag", f"{name}-{index}", bytes([1 if kind == 8 else 0]) + body)
                stream += chunks(kind, body[:2000], csid=4 + kind % 8)
            put("server_session", f"{name}-stream", stream[:20000])


main()
