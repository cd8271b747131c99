"""As much of the Dockerfile's language as this project's uses. Whatever is not known here is an error."""

import json
import os
import re


class DockerfileError(Exception):
    """What is wrong, or not known here."""


class Instruction:
    """One instruction: its name, its `--flags`, and the rest as it is written."""

    def __init__(self, text):
        self.text = text
        self.name, _, rest = text.partition(" ")
        self.flags = []
        while found := re.match(r"\s*--([a-z-]+)=(\S+)\s*", rest):
            self.flags.append(found.groups())
            rest = rest[found.end():]
        self.rest = rest.strip()

    def flag(self, name):
        """The value of a flag that may be given once."""
        return dict(self.flags).get(name)

    def words(self, count):
        """The rest as that many words."""
        words = self.rest.split()
        if len(words) != count or self.rest.startswith("["):
            raise DockerfileError(f"`{self.text}`: {count} words were expected")
        return words

    def command(self):
        """The rest as a list, the only form that works without a shell in the image."""
        try:
            written = self.rest.removeprefix("CMD ") if self.name == "HEALTHCHECK" else self.rest
            return [str(word) for word in json.loads(written)]
        except ValueError:
            raise DockerfileError(f"`{self.text}`: not a JSON list, and the image has no shell") from None


# What each instruction may be given.
FLAGS = {
    "ARG": set(), "COPY": {"from", "chown"}, "ENTRYPOINT": set(), "ENV": set(), "EXPOSE": set(), "FROM": {"platform"},
    "HEALTHCHECK": {"interval", "timeout", "start-period", "retries"}, "LABEL": set(), "RUN": {"mount"}, "USER": set(),
    "VOLUME": set(), "WORKDIR": set(),
}


def parse(text):
    """The instructions in order, comments left out, continued lines joined as a shell sees them."""
    lines = [line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")]
    found = [Instruction(one.strip()) for one in "\n".join(lines).replace("\\\n", "").split("\n")]
    for instruction in found:
        if instruction.name not in FLAGS:
            raise DockerfileError(f"`{instruction.text}`: {instruction.name} is not known here")
        for name, _ in instruction.flags:
            if name not in FLAGS[instruction.name]:
                raise DockerfileError(f"`{instruction.text}`: --{name} is not known here")
    return found


def expand(text, variables):
    """`$NAME` and `${NAME}`; one that has no value is an error."""
    def value(found):
        name = found[1] or found[2]
        if variables.get(name) is None:
            raise DockerfileError(f"`{text}`: {name} has no value here")
        return variables[name]
    expanded = re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, text)
    if "${" in expanded:
        raise DockerfileError(f"`{text}`: only $NAME and ${{NAME}} are known here")
    return expanded


def pairs(instruction, variables):
    """`NAME=VALUE ...`, values perhaps quoted."""
    found = re.findall(r'([\w.-]+)=(?:"([^"]*)"|(\S*))\s*', instruction.rest)
    if re.sub(r'([\w.-]+)=(?:"([^"]*)"|(\S*))\s*', "", instruction.rest):
        raise DockerfileError(f"`{instruction.text}`: not NAME=VALUE")
    return {name: expand(quoted or plain, variables) for name, quoted, plain in found}


def context(folder, rules):
    """Paths of the files of a build context, relative to `folder`, that the rules of a .dockerignore leave in."""
    patterns = []
    for rule in rules.split("\n"):
        if rule.strip() and not rule.startswith("#"):
            kept, pattern = rule.startswith("!"), rule.lstrip("!").strip("/ ")
            escaped = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
            patterns.append((kept, re.compile(rf"{escaped}(?:/.*)?")))
            if "[" in pattern or "?" in pattern or "**" in pattern.replace("**/", ""):
                raise DockerfileError(f".dockerignore: `{rule}` is not known here")

    def stays(path):
        last = [kept for kept, pattern in patterns if pattern.fullmatch(path)]
        return not last or last[-1]

    # A rule may take in again what is below a folder that is left out, so no folder is passed over.
    for place, _, files in os.walk(folder):
        below = os.path.relpath(place, folder)
        yield from (path for name in sorted(files) if stays(path := os.path.normpath(os.path.join(below, name))))
