"""docs/operate.md: what it has for pasting is pasted, and its commands are run."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import unittest

from places import BINARIES, ROOT

PAGE = (ROOT / "docs/operate.md").read_text()
CONFIGURATION = ROOT / "edge-config/configurations/one-camera.json"
#: A JSON block and the line before it.
JSON_BLOCK = re.compile(r"^```json\n(.*?)^```$", re.M | re.S)
#: Patience with a busy machine, in seconds.
LONG = 90


def pasted():
    """The manifest that the page's chapter on *Set modules* makes when all of it is pasted."""
    chapter = PAGE.split("<!-- Written by edge-config/portal.py. -->")[1].split("<!-- So far. -->")[0]
    system, modules, twins = {}, {}, {}
    for part in re.split(r"^(?=- \*\*|\*Add › )", chapter, flags=re.M)[1:]:
        blocks = [json.loads(block) for block in JSON_BLOCK.findall(part)]
        if found := re.match(r"- \*\*(\w+)\*\*: image `(.+?)`; environment (.+); create options$", part, re.M):
            name, image, variables = found.groups()
            env = {key: {"value": value} for key, value in re.findall(r"`(\w+)` = `(.+?)`", variables)}
            system[name] = {"type": "docker", "settings": {"image": image, "createOptions": blocks[0]}, "env": env}
        else:
            form = r"\*Add › IoT Edge Module\*: name `(.+?)`, image `(.+?)`, restart policy `(.+?)`\.$"
            name, image, policy = re.match(form, part, re.M).groups()
            settings = {"image": image, "createOptions": blocks[0]}
            modules[name] = {"type": "docker", "status": "running", "restartPolicy": policy, "settings": settings}
            twins[name] = {"properties.desired": blocks[1]}
    system["edgeHub"] |= {"status": "running", "restartPolicy": "always"}
    runtime = {"type": "docker", "settings": {"minDockerVersion": "v1.25"}}
    agent = {"schemaVersion": "1.1", "runtime": runtime, "systemModules": system, "modules": modules}
    routes = dict(re.findall(r"^\| `(\w+)` \| `(FROM .*)` \|$", chapter, re.M))
    hub = {"schemaVersion": "1.1", "routes": routes}
    return {"modulesContent": {
        "$edgeAgent": {"properties.desired": agent}, "$edgeHub": {"properties.desired": hub}, **twins,
    }}


def rows(title):
    """Method names and payloads of the table below this line."""
    table = PAGE.split(f"*{title} › Direct Method*")[1].split("\n\n")[1]
    return [(name, text.replace("\\|", "|")) for name, text in re.findall(r"^\| `(\w+)` \| `(.*)` \|$", table, re.M)]


def holds(query, document):
    """Whether a twin is among what a query of IoT Hub finds; it must have each property that is named."""
    condition = re.fullmatch(r"SELECT .+ FROM devices\.modules WHERE (.+)", query.strip())[1]

    def is_so(term):
        path, compare, given = re.fullmatch(r"\s*([\w.]+)\s*(=|!=|>)\s*('[^']*'|\d+)\s*", term).groups()
        value = document
        for name in path.split("."):
            value = value[name]
        given = given.strip("'") if given.startswith("'") else int(given)
        return {"=": value == given, "!=": value != given, ">": compare == ">" and value > given}[compare]

    return any(all(map(is_so, part.split(" AND "))) for part in condition.split(" OR "))


def rebind(value):
    """Puts free ports in place of those of a device."""
    if isinstance(value, dict):
        for bound in value.get("PortBindings", {}).values():
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                bound[0]["HostPort"] = str(probe.getsockname()[1])
        for inner in value.values():
            rebind(inner)


class Portal(unittest.TestCase):
    """What the page says, as text."""

    def test_the_page_holds_what_the_template_says(self):
        made = subprocess.run(
            [sys.executable, ROOT / "edge-config/portal.py", "--check"], capture_output=True, text=True, check=False
        )
        self.assertEqual(made.returncode, 0, made.stdout + made.stderr)

    def test_pasted_it_is_the_manifest_of_the_template(self):
        found = pasted()["modulesContent"]
        template = json.loads((ROOT / "deployment.template.json").read_text())["modulesContent"]
        agent, ours = (content["$edgeAgent"]["properties.desired"] for content in (template, found))
        for kind in ("modules", "systemModules"):
            for name, module in ours[kind].items():
                self.assertEqual(module.get("env", {}), agent[kind][name].get("env", {}), name)
        built = {file.parent.name for file in (ROOT / "modules").glob("*/module.json")}
        self.assertEqual(set(ours["modules"]), built)
        for name in built:
            self.assertEqual(found[name], template[name])
        routes = template["$edgeHub"]["properties.desired"]["routes"]
        self.assertEqual(found["$edgeHub"]["properties.desired"]["routes"], routes)

    def test_every_json_of_the_page_is_json(self):
        blocks = JSON_BLOCK.findall(PAGE)
        payloads = re.findall(r"(?:--mp|--desired) '(.*?)'", PAGE, re.S)
        tables = rows("MODULE") + rows("$edgeAgent")
        for found, least in [(blocks, 16), (payloads, 4), (tables, 8)]:
            self.assertGreaterEqual(len(found), least)
        for text in [*blocks, *payloads, *(payload for _, payload in tables)]:
            json.loads(text)

    def test_every_command_of_the_pages_is_one_for_a_shell(self):
        for page in ["operate", "deploy"]:
            text = (ROOT / f"docs/{page}.md").read_text()
            for commands in re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S):
                read = subprocess.run(["bash", "-n"], input=commands, capture_output=True, text=True, check=False)
                self.assertEqual(read.returncode, 0, commands + read.stderr)

    def test_a_site_behind_a_proxy_keeps_what_the_template_sets(self):
        chapter = PAGE.split("### Behind a proxy")[1].split("\n## ")[0]
        (env,) = [json.loads(block)["env"] for block in JSON_BLOCK.findall(chapter)]
        self.assertEqual(set(env), {"storageFolder", "UpstreamProtocol", "https_proxy"})
        self.assertIn(env["UpstreamProtocol"]["value"], ["AmqpWs", "MqttWs"])
        template = json.loads((ROOT / "deployment.template.json").read_text())["modulesContent"]
        for module in template["$edgeAgent"]["properties.desired"]["systemModules"].values():
            self.assertEqual(module["env"]["storageFolder"], env["storageFolder"])

    def test_the_automatic_configuration_has_a_flow_and_asks_modules(self):
        document = json.loads(CONFIGURATION.read_text())
        content = document["content"]["moduleContent"]
        self.assertTrue(all(key.startswith("properties.desired.flows.") for key in content))
        for query in document["metrics"]["queries"].values():
            self.assertRegex(query, "^SELECT .* FROM devices.modules WHERE .*properties.reported.config.status")


class Pasted(unittest.TestCase):
    """What the page says, done: the manifest runs by the rules of a device, and everything is asked of it."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="pasted-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        (cls.folder / "recordings").mkdir()
        manifest = pasted()
        rebind(manifest)
        text = json.dumps(manifest).replace('"/MEDIA-DIR:', f'"{ROOT}/edge-config:')
        text = text.replace('"/RECORDINGS-DIR:', f'"{cls.folder}/recordings:')
        (cls.folder / "manifest.json").write_text(text)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        command = [BINARIES / "local-edge", "--state-dir", cls.folder / "state", "up", "--device-rules", "--port", port]
        log = (cls.folder / "log").open("w")
        cls.addClassCleanup(log.close)
        environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
        cls.program = subprocess.Popen(
            [*command, "--manifest", cls.folder / "manifest.json"], env=environment, stdout=log, stderr=log
        )
        cls.addClassCleanup(cls.end)

    @classmethod
    def end(cls):
        cls.program.terminate()
        try:
            cls.program.wait(timeout=60)
        except subprocess.TimeoutExpired:
            cls.program.kill()
            cls.program.wait()
            raise

    def run_program(self, *command, **more):
        return subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False, **more)

    def ask(self, *arguments):
        return self.run_program(BINARIES / "local-edge", "--state-dir", self.folder / "state", *arguments)

    def until(self, what, condition):
        deadline = time.monotonic() + LONG
        while not (found := condition()):
            ended = self.program.poll()
            log = (self.folder / "log").read_text()[-3000:]
            self.assertIsNone(ended, f"{what}: local-edge ended: {log}")
            self.assertLess(time.monotonic(), deadline, f"{what}: {log}")
            time.sleep(0.2)
        return found

    def reported(self, module="rtmp-splitter"):
        shown = self.ask("twin", "show", module)
        return json.loads(shown.stdout)["reported"] if shown.returncode == 0 else {}

    def desire(self, patch):
        """Changes the splitter's desired properties, which it is to take as a whole."""
        self.ask("twin", "set", "rtmp-splitter", json.dumps(patch))

        def applied():
            twin = json.loads(self.ask("twin", "show", "rtmp-splitter").stdout)
            config = twin["reported"]["config"]
            return config["desiredVersion"] == twin["desired"]["$version"] and config["status"] == "applied"

        self.until(f"{patch} is applied", applied)

    def until_the_test_card_runs(self):
        self.until(
            "the test card runs",
            lambda: self.reported().get("flows", {}).get("testcard", {}).get("state") == "running",
        )

    def pid(self, module):
        shown = json.loads(self.ask("ps", "--json").stdout)
        return next(row["process"].get("pid") for row in shown["modules"] if row["name"] == module)

    def test_it_is_pasted_and_everything_is_asked_of_it(self):
        self.until_the_test_card_runs()
        self.call_what_the_tables_have()
        self.run_the_commands()
        self.query_what_is_reported()
        self.delete_the_flow()

    def call_what_the_tables_have(self):
        for module, title in [("rtmp-splitter", "MODULE"), ("$edgeAgent", "$edgeAgent")]:
            for name, payload in rows(title):
                with self.subTest(module=module, method=name):
                    before = self.pid("rtmp-splitter")
                    answer = json.loads(self.ask("method", module, name, payload).stdout)
                    if name == "UploadSupportBundle":
                        self.assertEqual(answer["status"], 400)
                        self.assertIn("there is none here", answer["payload"]["message"])
                        continue
                    self.assertEqual(answer["status"], 200, answer)
                    if name == "RestartModule":
                        self.until("another process", lambda: self.pid("rtmp-splitter") not in (before, None))
                        self.until_the_test_card_runs()
                    if name == "GetModuleLogs":
                        lines = answer["payload"][0]["payload"].splitlines()
                        self.assertEqual([line for line in lines if not re.search(r"\[(ERR|WRN)\]", line)], [])

    def run_the_commands(self):
        url = "rtmp://0.0.0.0:1935/live/gate"
        gate = {"input": {"listen": url}, "outputs": {"viewers": {"serve": url}}}
        self.desire({"flows": {"gate": gate}})
        environment = os.environ | {
            "PATH": f"{ROOT}/tests/deployment:{os.environ['PATH']}",
            "LOCAL_EDGE": str(BINARIES / "local-edge"),
            "STATE_DIR": str(self.folder / "state"),
        }
        blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)
        self.assertGreaterEqual(len(blocks), 5)
        for commands in blocks:
            with self.subTest(commands=commands):
                ran = self.run_program("bash", "-eu", "-c", commands, cwd=ROOT, env=environment)
                self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        self.until("`null` takes the output away", lambda: set(self.reported()["flows"]["gate"]["outputs"]) == {"viewers"})

    def query_what_is_reported(self):
        (content,) = json.loads(CONFIGURATION.read_text())["content"]["moduleContent"].items()
        desired = content[1]
        for name in reversed(content[0].removeprefix("properties.desired.").split(".")):
            desired = {name: desired}
        self.desire(desired)
        queries = json.loads(CONFIGURATION.read_text())["metrics"]["queries"]
        document = {"deviceId": "DEVICE", "moduleId": "rtmp-splitter", "properties": {"reported": self.reported()}}
        self.assertIn("north-gate", document["properties"]["reported"]["flows"])
        self.assertEqual(
            {name: holds(query, document) for name, query in queries.items()}, {"applied": True, "notWhole": False}
        )
        trouble = (ROOT / "edge-config/monitoring/devices-with-trouble.iothub").read_text()
        self.assertIn(trouble.strip(), PAGE)
        self.assertFalse(holds(trouble, document))
        for condition in re.findall(r"\(`(WHERE .*?)`\)", PAGE):
            self.assertFalse(holds(f"SELECT x FROM devices.modules {condition}", document), condition)

    def delete_the_flow(self):
        (patch,) = [block for block in JSON_BLOCK.findall(PAGE) if "null" in block]
        self.desire(json.loads(patch))
        self.assertNotIn("testcard", self.reported()["flows"])
        self.assertIn("live", self.reported()["flows"])


class Logs(unittest.TestCase):
    """The filters of the page, as edgeAgent holds them against lines."""

    LINE = re.compile(r"^(<(?P<level>\d)>)?\s*\d{4}-\d\d-\d\d\s\d\d:\d\d:\d\d.\d{3}\s[+-]\d\d:\d\d\s(?P<text>.*)$", re.S)

    def passes(self, given, line):
        found = self.LINE.match(line)
        level, text = int(found["level"] or 6), found["text"]
        return level == given.get("loglevel", level) and bool(re.search(given.get("regex", ""), text))

    def test_filters_show_errors_and_warnings_and_nothing_else(self):
        payloads = re.findall(r"--mn GetModuleLogs --mp '(.*?)'", PAGE, re.S)
        tabled = [payload for name, payload in rows("$edgeAgent") if name == "GetModuleLogs"]
        self.assertTrue(payloads and tabled)
        at = "2026-01-01 00:00:00.000 +00:00"
        lines = [f"<{level}> {at} [{word}] - text" for level, word in [(3, "ERR"), (4, "WRN"), (6, "INF"), (7, "DBG")]]
        for payload in payloads + tabled:
            for item in json.loads(payload)["items"]:
                shown = [line[1] for line in lines if self.passes(item["filter"], line)]
                self.assertEqual(shown, ["3", "4"], payload)
