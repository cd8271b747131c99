"""The network of the containers: loopback alone, and Docker's name server."""

import ctypes
import fcntl
import socket
import struct
import threading

CLONE_NEWNET, SIOCSIFFLAGS, IFF_UP = 0x40000000, 0x8914, 1


def own():
    """A network of this process's own, in which every port is free, those below 1024 too."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))


def name_server(addresses):
    """Answers for these names where Docker does, from a thread of its own, as long as the process lives."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.11", 53))
    threading.Thread(target=answer, args=[listener, addresses], daemon=True).start()


def answer(listener, addresses):
    """IPv4 addresses; others there are none (RFC 1035, 4.1)."""
    while True:
        query, peer = listener.recvfrom(512)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        address = addresses.get(".".join(labels))
        is_ipv4 = query[at + 1:at + 3] == b"\0\1"
        found = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(address) if address and is_ipv4 else b""
        flags = 0x8180 if address else 0x8183
        head = query[:2] + struct.pack("!HHHHH", flags, 1, bool(found), 0, 0)
        listener.sendto(head + query[12:at + 5] + found, peer)
