"""Runs the instructions of a Dockerfile as BuildKit would, without a container engine.

A stage's root is an overlay of layers, one for each instruction, above Debian and Rust as the official image has
them. All mounts are of this process's mount namespace, and what is above the base is in memory: both are gone when it
ends. What stays is that base and the folders of `RUN --mount=type=cache`."""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess

from dockerfile import DockerfileError, context, expand, pairs, parse

# What `rust:VERSION-slim-bookworm`, `node:VERSION-bookworm-slim` and `debian:bookworm-slim` add to Debian's least system;
# certificates only so that the way out of this machine can be trusted. Debian's npm stands in for one of any version: it
# installs the same packages by a lock file.
PACKAGES = {
    "rust": "ca-certificates,gcc,libc6-dev", "node": "ca-certificates,npm", "debian": "ca-certificates",
}
PATHS = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
ENVIRONMENT = {
    "PATH": "/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "CARGO_HOME": "/usr/local/cargo", "RUSTUP_HOME": "/usr/local/rustup",
}
# Node.js has a list of its own of whom to trust; here it is this machine's.
NODE_ENVIRONMENT = PATHS | {
    "NODE_EXTRA_CA_CERTS": "/etc/ssl/certs/ca-certificates.crt",
}
# BuildKit hands these on unasked.
PROXIES = {name: text for name, text in os.environ.items() if name.lower() in ("http_proxy", "https_proxy", "no_proxy")}


def run(*command, **options):
    """A command that must end well; what it said is in the error."""
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", check=False, **options)
    if done.returncode:
        raise DockerfileError(f"{done.stdout[-4000:]}\n`{command[0]}` ended with {done.returncode}")
    return done.stdout


@contextlib.contextmanager
def mounted(place, *arguments):
    """A mount, until it is no longer needed."""
    if not place.is_file():
        place.mkdir(parents=True, exist_ok=True)
    run("mount", *arguments, place)
    try:
        yield place
    finally:
        run("umount", "--recursive", "--lazy", place)


def overlay(place, layers, upper):
    """A folder that shows `layers`, the lowest first, and below which changes go to `upper`."""
    work = upper.with_name(f"{upper.name}.work")
    for folder in (upper, work):
        folder.mkdir(parents=True, exist_ok=True)
    lower = ":".join(map(str, reversed(layers)))
    return mounted(place, "-t", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", "overlay")


def execute(root, script, environment, directory="/"):
    """RUN: a shell in a root folder, with what the kernel gives, and the resolver and the trust of this machine."""
    with contextlib.ExitStack() as mounts:
        for folder in ("proc", "dev"):
            mounts.enter_context(mounted(root / folder, "--rbind", f"/{folder}"))
        for file in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
            (root / file).touch()
            mounts.enter_context(mounted(root / file, "--bind", f"/{file}"))
        run("chroot", root, "env", "-C", directory, "/bin/sh", "-c", script, env=PROXIES | environment)


def copy(source, names, target, owner):
    """COPY: the named files and folders below `source`; `.` is the source itself. Times stay, as in BuildKit."""
    for name in names:
        place = target / name
        missing = [folder for folder in [place, *place.parents] if not folder.exists()]
        place.parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            place.mkdir(exist_ok=True)
        else:
            shutil.copy2(source / name, place)
        for folder in missing:
            os.chown(folder, *owner)


class Stage:
    """One stage: its layers, what RUN gets to see, and the configuration of its image."""

    def __init__(self, layers, environment):
        self.layers, self.environment, self.arguments = layers, dict(environment), {}
        # What was done so far, from which a layer follows.
        self.key, self.directory = str(layers), "/"
        self.config = {"LABEL": {}, "VOLUME": [], "EXPOSE": [], "USER": None, "ENTRYPOINT": None, "HEALTHCHECK": None}

    def child(self):
        """A stage that begins as this one is now."""
        stage = Stage(self.layers, self.environment)
        stage.arguments, stage.key, stage.directory = dict(self.arguments), self.key, self.directory
        return stage

    def variables(self):
        """What ARG and ENV have set."""
        return {name: text for name, text in self.arguments.items() if text is not None} | self.environment


class Builder:
    """Builds images of one Dockerfile. `work` is empty and in memory, `cache` stays from run to run."""

    def __init__(self, root, dockerfile, cache, work, native):
        self.root, self.cache, self.work, self.native = root, cache, work, native
        self.instructions = parse(dockerfile.read_text())
        rules = dockerfile.with_name(f"{dockerfile.name}.dockerignore").read_text()
        self.context = [path for path in context(root, rules) if (root / path).is_file()]
        self.layers = {}

    def build(self, architecture, given):
        """The layers and the configuration of the last stage, with `given` as `--build-arg`s."""
        automatic = {"BUILDPLATFORM": f"linux/{self.native}", "TARGETPLATFORM": f"linux/{architecture}",
                     "BUILDARCH": self.native, "TARGETARCH": architecture, "TARGETOS": "linux"}
        above, stages, stage = {}, {}, None
        for one in self.instructions:
            name, equals, default = one.rest.partition("=")
            if one.name == "FROM":
                base, _, name = expand(one.rest, automatic | above).partition(" AS ")
                platform = expand(one.flag("platform") or "$TARGETPLATFORM", automatic)
                stage = stages[name] = stages[base].child() if base in stages else self.start(base, platform)
            elif one.name != "ARG" and stage is None:
                raise DockerfileError(f"`{one.text}` before FROM")
            elif one.name == "ARG":
                known = stage.variables() if stage else above
                default = expand(default, known) if equals else (above | automatic).get(name)
                (stage.arguments if stage else above)[name] = given.get(name, default)
            else:
                self.apply(stage, one, stages)
        return stage

    def apply(self, stage, one, stages):
        """One instruction of a stage."""
        variables = stage.variables()
        if one.name == "RUN":
            self.layer(stage, one, lambda root: self.run_step(one, root, variables, stage.directory))
        elif one.name == "WORKDIR":
            stage.directory = os.path.join(stage.directory, expand(one.rest, variables))
            self.layer(stage, one, lambda root: (root / stage.directory[1:]).mkdir(parents=True, exist_ok=True))
        elif one.name == "COPY":
            source, target = (expand(word, variables) for word in one.words(2))
            owner = [int(number) for number in (one.flag("chown") or "0:0").split(":")]
            target = os.path.join(stage.directory, target)[1:]
            origin = stages[one.flag("from")] if one.flag("from") else None
            self.layer(stage, one, lambda root: self.copy_step(origin, source, root / target, owner),
                       origin and origin.key)
        elif one.name == "ENV":
            stage.environment |= pairs(one, variables)
        elif one.name == "LABEL":
            stage.config["LABEL"] |= pairs(one, variables)
        elif one.name in ("VOLUME", "EXPOSE"):
            stage.config[one.name].append(expand(*one.words(1), variables))
        elif one.name == "USER":
            stage.config["USER"] = expand(*one.words(1), variables)
        else:
            stage.config[one.name] = one.command()

    def layer(self, stage, one, step, *more):
        """Adds what `step` changes; what was done once, with all that it may depend on, is not done again."""
        stage.key = hashlib.sha256(repr((stage.key, one.text, stage.variables(), more)).encode()).hexdigest()
        upper = self.layers.get(stage.key)
        if not upper:
            print(f"  {one.text[:100]}", flush=True)
            upper = self.work / f"layer-{len(self.layers)}"
            with self.root_of(stage.layers, upper) as root:
                step(root)
            self.layers[stage.key] = upper
        stage.layers = [*stage.layers, upper]

    def root_of(self, layers, upper):
        """The root folder that layers make."""
        empty = self.work / "empty"
        empty.mkdir(exist_ok=True)
        return overlay(self.work / f"root-{upper.name}", layers or [empty], upper)

    def run_step(self, one, root, variables, directory):
        with contextlib.ExitStack() as mounts:
            for _, mount in one.flags:
                options = dict(part.split("=", 1) for part in mount.split(","))
                if options.pop("type") != "cache" or options.keys() - {"target", "sharing"} or "$" in mount:
                    raise DockerfileError(f"`{one.text}`: only caches with target and sharing are known here")
                kept = self.cache / "mounts" / options["target"].strip("/").replace("/", "-")
                kept.mkdir(parents=True, exist_ok=True)
                mounts.enter_context(mounted(root / options["target"].strip("/"), "--bind", kept))
            execute(root, one.rest, variables, directory)

    def copy_step(self, origin, source, target, owner):
        if origin is None:
            found = self.root / source
            if not found.is_dir():
                raise DockerfileError(f"COPY {source}: only folders of the build context are known here")
            names = [os.path.relpath(self.root / name, found) for name in self.context]
            return copy(found, [name for name in names if not name.startswith("../")], target, owner)
        with self.root_of(origin.layers, self.work / "read") as root:
            found = root / source.strip("/")
            if not found.exists():
                raise DockerfileError(f"COPY --from: there is no {source}")
            names = sorted(str(path.relative_to(found)) for path in [found, *found.rglob("*")])
            return copy(found, names, target, owner)

    def start(self, base, platform):
        """FROM."""
        if base == "scratch":
            return Stage([], {})
        name = re.fullmatch(r"(rust):([\d.]+)-slim-bookworm|(node):\d+-bookworm-slim|debian:bookworm-slim", base)
        if not name or platform != f"linux/{self.native}":
            raise DockerfileError(f"there is no stand-in for {base} on {platform}")
        if base.startswith("debian"):
            return Stage([self.debian(PACKAGES["debian"])], PATHS)
        if name[1]:
            return Stage([self.debian(PACKAGES["rust"], name[2])], ENVIRONMENT)
        return Stage([self.debian(PACKAGES["node"])], NODE_ENVIRONMENT)

    def debian(self, packages, rust=None):
        """The stand-in for an official image: the same packages, the same Rust."""
        name = hashlib.sha256(f"{packages} {rust}".encode()).hexdigest()[:8]
        base = self.cache / f"base-{name}"
        if base.exists():
            return base
        # It gets its name once it is whole.
        half = self.cache / "half"
        shutil.rmtree(half, ignore_errors=True)
        run("mmdebstrap", "--variant=minbase", f"--include={packages}", "--dpkgopt=force-unsafe-io", "bookworm", half)
        if rust:
            programs = half / "usr/local/cargo/bin"
            programs.mkdir(parents=True)
            shutil.copy(shutil.which("rustup"), programs / "rustup")
            for program in ("cargo", "rustc"):
                (programs / program).symlink_to("rustup")
            execute(half, f"rustup toolchain install --profile minimal {rust} && rustup default {rust}", ENVIRONMENT)
        half.rename(base)
        return base
