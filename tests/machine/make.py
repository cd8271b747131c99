#!/usr/bin/env python3
"""Makes what a virtual machine starts from: Debian's kernel, and what comes before this machine's own root folder.

    tests/machine/make.py FOLDER

Leaves `kernel` and `initramfs` in FOLDER. Packages are downloaded, not installed; of the kernel's modules those of the
machine's devices are kept. `init` then mounts the root folder of the machine that runs the tests, so that there is no
image of a disk: the guest has the same programs and libraries."""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
KERNEL, SHELL = "linux-image-amd64", "busybox-static"
# In the order in which they are loaded: a sound card takes the driver of its codec that is there.
MODULES = ["virtio_pci", "virtio_net", "9pnet_virtio", "9p", "virtio_gpu", "bochs", "snd_hda_codec_generic",
           "snd_hda_intel"]
FOLDERS = ("bin", "modules", "root", "dev", "proc", "sys")
FOLDER, PROGRAM, FILE = 0o40755, 0o100755, 0o100644


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def unpack(package, folder):
    """Downloads a package and unpacks it."""
    with tempfile.TemporaryDirectory() as place:
        run("apt-get", "-q", "download", package, cwd=place)
        run("dpkg-deb", "--extract", next(pathlib.Path(place).glob("*.deb")), folder)


def modules(folder):
    """The files of the modules, what each depends on before it."""
    files = {file.stem.replace("-", "_"): file for file in folder.rglob("*.ko")}
    found = []

    def add(name):
        file = files[name]
        for other in filter(None, re.search(rb"\0depends=([^\0]*)\0", file.read_bytes())[1].decode().split(",")):
            add(other.replace("-", "_"))
        if file not in found:
            found.append(file)

    for wanted in MODULES:
        add(wanted)
    return found


def archive(entries):
    """An archive as cpio writes it (`newc`): pairs of a name and mode, and content."""
    whole = bytearray()
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")]):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        whole += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        whole += b"\0" * (-len(whole) % 4) + content
        whole += b"\0" * (-len(whole) % 4)
    return whole


def main(target):
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        unpack(re.search(r"Depends: (linux-image-\d\S+)", run("apt-cache", "depends", KERNEL))[1], place)
        unpack(SHELL, place)
        entries = [(name, FOLDER, b"") for name in FOLDERS]
        entries.append(("bin/busybox", PROGRAM, (place / "bin/busybox").read_bytes()))
        entries.append(("init", PROGRAM, (HERE / "init").read_bytes()))
        for number, file in enumerate(modules(place / "lib/modules")):
            entries.append((f"modules/{number:03}-{file.name}", FILE, file.read_bytes()))
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(next(place.glob("boot/vmlinuz-*")), target / "kernel")
        # It gets its name once it is whole.
        half = target / "initramfs.new"
        half.write_bytes(archive(entries))
        half.rename(target / "initramfs")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
