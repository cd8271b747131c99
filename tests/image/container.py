"""Runs an image as `compose.yaml` has Docker run it: a root of its own, read-only; one volume; no capabilities."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

from build import run

ENTER = pathlib.Path(__file__).with_name("enter.py")
EMULATOR = "/.emulator"


class Container:
    """A running container, below the folder `place`; `mounts` are pairs of a folder and where it is to be seen."""

    def __init__(self, image, place, arguments, mounts, environment, emulator):
        self.config, self.root, self.environment, self.emulator = image.config, place / "root", environment, emulator
        self.volumes, self.log = [], place / "log"
        self.make_root(image.root, place, mounts)
        with self.log.open("wb") as log:
            # It is process 1 of its own, which gets only the signals that it asks for.
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={self.root}/proc",
                 *self.enter([*self.config["ENTRYPOINT"], *arguments])],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def make_root(self, image, place, mounts):
        """The image, with what Docker puts into every container."""
        root = self.root
        place.mkdir(parents=True)
        run("cp", "-a", image, root)
        run("mount", "--bind", root, root)
        for folder in ("proc", "dev", "etc"):
            (root / folder).mkdir(exist_ok=True)
        (root / "etc/resolv.conf").write_text("nameserver 127.0.0.11\noptions ndots:0\n")
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", root / "dev")
        for device in ("null", "zero", "full", "random", "urandom"):
            (root / "dev" / device).touch()
            run("mount", "--bind", f"/dev/{device}", root / "dev" / device)
        for volume in self.config["VOLUME"]:
            # A new volume starts as a copy of what the image has there, owner included.
            inside, outside = root / volume[1:], place / f"volume-{len(self.volumes)}"
            inside.mkdir(parents=True, exist_ok=True)
            run("cp", "-a", inside, outside)
            run("mount", "--bind", outside, inside)
            self.volumes.append(outside)
        for source, target in mounts:
            (root / target[1:]).mkdir(parents=True, exist_ok=True)
            run("mount", "--bind", "-o", "ro", source, root / target[1:])
        if self.emulator:
            shutil.copy(self.emulator, root / EMULATOR[1:])
        run("mount", "-o", "remount,bind,ro", root)

    def enter(self, command):
        emulator = [EMULATOR] if self.emulator else []
        return [sys.executable, str(ENTER), str(self.root), self.config["USER"], *emulator, *command]

    def first(self):
        """The process that is number 1 in there, if it runs."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = children.read_text().split() if self.process.poll() is None else []
        return int(found[0]) if found else None

    def execute(self, command):
        """As `docker exec`: a program beside the first; its exit code and what it said."""
        first = self.first()
        if first is None:
            return 125, "the container does not run"
        done = subprocess.run(["nsenter", f"--target={first}", "--mount", "--pid", *self.enter(command)],
                              env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    def status(self):
        """What the kernel says of the first process."""
        lines = pathlib.Path(f"/proc/{self.first()}/status").read_text().splitlines()
        return dict(re.split(r":\s*", line, maxsplit=1) for line in lines)

    def stop(self, seconds):
        """SIGTERM; the exit code, or None when it takes longer than that."""
        if first := self.first():
            os.kill(first, signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None
