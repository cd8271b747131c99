#!/usr/bin/env python3
"""Writes what is pasted into the portal's *Set modules* into docs/operate.md, from deployment.template.json.

    edge-config/portal.py [--check]

`--check` says whether the page is up to date.
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/operate.md"
BEGIN, END = "<!-- Written by edge-config/portal.py. -->", "<!-- So far. -->"
#: What a device has for the template's variables.
VALUES = {"${RTMP_PORT}": "1935", "${RTSP_PORT}": "8554", "${HLS_PORT}": "8080", "${MEDIA_DIR}": "/MEDIA-DIR",
          "${RECORDINGS_DIR}": "/RECORDINGS-DIR"}


def shown(value, indent=0):
    """JSON as people write it: on one line what fits there."""
    line = json.dumps(value)
    if not isinstance(value, dict) or len(line) + indent < 100:
        return line
    inner = " " * (indent + 2)
    rows = [f"{inner}{json.dumps(key)}: {shown(item, indent + 2)}" for key, item in value.items()]
    return "{\n" + ",\n".join(rows) + "\n" + " " * indent + "}"


def block(value):
    return f"```json\n{shown(value)}\n```\n"


def image(name):
    found = json.loads((ROOT / "modules" / name / "module.json").read_text())["image"]
    return f"REGISTRY.azurecr.io/{name}:{found['tag']['version']}-amd64"


def chapter():
    text = (ROOT / "deployment.template.json").read_text()
    for name, value in VALUES.items():
        text = text.replace(name, value)
    content = json.loads(text)["modulesContent"]
    agent = content["$edgeAgent"]["properties.desired"]
    parts = ["*Runtime settings*, on each tab:\n"]
    for name, module in agent["systemModules"].items():
        variables = ", ".join(f"`{key}` = `{entry['value']}`" for key, entry in module["env"].items())
        parts.append(f"- **{name}**: image `{module['settings']['image']}`; environment {variables}; create options\n")
        parts.append(block(module["settings"]["createOptions"]))
    for name, module in agent["modules"].items():
        if not (ROOT / "modules" / name / "module.json").exists():
            continue
        parts.append(f"*Add › IoT Edge Module*: name `{name}`, image `{image(name)}`, restart policy `always`.\n")
        parts.append("*Container Create Options*:\n")
        parts.append(block(module["settings"]["createOptions"]))
        parts.append("*Module Twin Settings*:\n")
        parts.append(block(content[name]["properties.desired"]))
    parts.append("*Routes*:\n")
    parts.append("| name | value |\n|---|---|\n" + "".join(
        f"| `{name}` | `{route}` |\n" for name, route in content["$edgeHub"]["properties.desired"]["routes"].items()
    ))
    return "\n".join(parts)


def main():
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    written = f"{before}{BEGIN}\n\n{chapter()}\n{END}{after}"
    if "--check" not in sys.argv:
        PAGE.write_text(written)
    elif page != written:
        print("docs/operate.md is not what edge-config/portal.py writes: run it")
        sys.exit(1)


main()
