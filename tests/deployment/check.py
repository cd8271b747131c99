#!/usr/bin/env python3
"""What surrounds the modules is right: manifest, schema, monitoring, image, standalone, pages.

    tests/deployment/check.py BINARIES

BINARIES is the folder with the built modules. Needs `iotedgedev` (PyPI) at $IOTEDGEDEV or on the path, and
`jsonschema` (PyPI, 4.x) beside this Python; what cannot run is skipped and counted.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import unittest
import urllib.request

try:
    from jsonschema import Draft202012Validator
except ImportError:
    Draft202012Validator = None

from places import BINARIES, ROOT

# Their tests are found here.
from portal import Logs, Pasted, Portal  # noqa: F401

KUSTO = pathlib.Path(os.environ.get("KUSTO") or ROOT / "tests/.tools/kusto/node_modules")
IOTEDGEDEV = os.environ.get("IOTEDGEDEV") or shutil.which("iotedgedev")
sys.path.append(str(ROOT / "tests"))
import skipped  # noqa: E402

MONITORING = ROOT / "edge-config/monitoring"
# A folder with a module.json is a service.
OURS = {file.parent.name for file in (ROOT / "modules").glob("*/module.json")}


def own_address(number):
    """A loopback address of this process's own, so that nothing else that runs here is met."""
    return f"127.{93 + number}.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"


def end(process):
    """Ends a module; one that does not end when it is told to is a fault, and is killed."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def listed_metrics(module=None):
    """Those of every module and, below `# Of NAME alone:`, those of one; without a name all of them."""
    rows, whose = [], None
    for line in (MONITORING / "metrics.txt").read_text().splitlines():
        if found := re.fullmatch(r"# Of (\S+) alone:", line):
            whose = found[1]
        elif line and not line.startswith("#") and (module is None or whose in (None, module)):
            rows.append(line.split())
    return {row[0]: (row[1], [] if row[2] == "-" else row[2].split(",")) for row in rows}


class Manifest(unittest.TestCase):
    """deployment.template.json, as Microsoft's own tool reads it."""

    @classmethod
    def setUpClass(cls):
        if not IOTEDGEDEV:
            raise unittest.SkipTest("no iotedgedev")
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        root = pathlib.Path(folder.name)
        # It reports to its makers unless told otherwise.
        (root / "home/.iotedgedev").mkdir(parents=True)
        (root / "home/.iotedgedev/setting.ini").write_text("[DEFAULT]\nfirsttime = no\ncollect_telemetry = no\n")
        shutil.copy(ROOT / "deployment.template.json", root)
        for module in (ROOT / "modules").glob("*/module.json"):
            (root / "modules" / module.parent.name).mkdir(parents=True)
            shutil.copy(module, root / "modules" / module.parent.name)
        # Those of local.env, and for these what a device has.
        values = "REGISTRY=registry.example.com\nMEDIA_DIR=/srv/media\nRECORDINGS_DIR=/srv/recordings\n"
        given = [line for line in (ROOT / "edge-config/local.env").read_text().splitlines() if "=" in line]
        kept = [line for line in given if line.split("=")[0] not in ("REGISTRY", "MEDIA_DIR", "RECORDINGS_DIR")]
        (root / ".env").write_text(values + "\n".join(kept) + "\n")
        command = [IOTEDGEDEV, "solution", "genconfig", "-f", "deployment.template.json", "-P", "amd64"]
        environment = os.environ | {"HOME": str(root / "home"), "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8"}
        made = subprocess.run(
            [*command, "--fail-on-validation-error"],
            cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )
        cls.output = made.stdout + made.stderr
        cls.status = made.returncode
        result = root / "config/deployment.amd64.json"
        cls.text = result.read_text() if result.exists() else ""

    def test_it_becomes_a_deployment_manifest_without_a_complaint(self):
        self.assertEqual(self.status, 0, self.output)
        self.assertIn("Validation for all createOptions passed", self.output)
        for complaint in ["validation failed", "Warning:", "not found"]:
            self.assertNotIn(complaint, self.output)

    def test_nothing_is_left_to_be_filled_in(self):
        self.assertNotIn("${", self.text)
        self.assertNotIn("$schema-template", self.text)

    def test_create_options_are_texts_that_docker_reads(self):
        agent = json.loads(self.text)["modulesContent"]["$edgeAgent"]["properties.desired"]
        modules = agent["modules"] | agent["systemModules"]
        self.assertGreaterEqual(len(modules), 4)
        for name, module in modules.items():
            settings = module["settings"]
            pieces = sorted(key for key in settings if key.startswith("createOptions"))
            options = json.loads("".join(settings[key] for key in pieces))
            self.assertIn("max-size", options["HostConfig"]["LogConfig"]["Config"], name)
            if name in agent["systemModules"]:
                # Else messages and twins end with the container.
                folder = module["env"]["storageFolder"]["value"]
                self.assertEqual(options["HostConfig"]["Binds"], [f"{name}:{folder}"])
                self.assertNotIn("PortBindings", options["HostConfig"], "modules reach it on their network")
            if name in self.ours(agent):
                self.assertEqual(options["HostConfig"]["CapDrop"], ["ALL"], name)
                self.assertGreaterEqual(options["HostConfig"]["Memory"], 128 << 20, name)
                self.assertRegex(settings["image"], rf"^registry\.example\.com/{name}:\d+\.\d+\.\d+-amd64$")
                self.assertTrue(options["HostConfig"]["ReadonlyRootfs"], name)
                self.assertTrue(any(f":/var/lib/{name}" in bind for bind in options["HostConfig"]["Binds"]), name)

    @staticmethod
    def ours(agent):
        return [name for name in agent["modules"] if (ROOT / "modules" / name / "module.json").exists()]

    def test_the_collector_takes_metrics_from_every_module_and_holds_no_secret(self):
        agent = json.loads(self.text)["modulesContent"]["$edgeAgent"]["properties.desired"]
        collector = agent["modules"]["metrics-collector"]
        env = {name: entry["value"] for name, entry in collector["env"].items()}
        modules = ["edgeHub", "edgeAgent", *self.ours(agent)]
        self.assertEqual(
            sorted(env["MetricsEndpointsCSV"].split(",")), sorted(f"http://{name}:9600/metrics" for name in modules)
        )
        self.assertTrue(env["DataCollectionRuleId"].startswith("dcr-"))
        # The identity is proven by a file of the device.
        self.assertEqual([name for name in env if re.search("SECRET|PASSWORD|KEY", name, re.I)], [])
        folder = pathlib.PurePosixPath(env["AZURE_CLIENT_CERTIFICATE_PATH"]).parent
        self.assertIn(f":{folder}:ro", json.dumps(collector["settings"]))


@unittest.skipUnless(Draft202012Validator, "no jsonschema")
class Schema(unittest.TestCase):
    """edge-config/twin.schema.json, tried by a validator that knows nothing of the modules."""

    @classmethod
    def setUpClass(cls):
        schema = json.loads((ROOT / "edge-config/twin.schema.json").read_text())
        Draft202012Validator.check_schema(schema)
        cls.validator = Draft202012Validator(schema)
        documents = ROOT / "tests/repository/documents.json"
        cls.documents = json.loads(documents.read_text())

    def assert_valid(self, place, document):
        errors = [f"{error.json_path}: {error.message}" for error in self.validator.iter_errors(document)]
        self.assertEqual(errors, [], f"{place}: {json.dumps(document)}")

    def test_every_sample_is_valid(self):
        folder = ROOT / "edge-config"
        samples = [*folder.glob("*.json"), *folder.glob("standalone/twins/*.json")]
        samples.remove(folder / "twin.schema.json")
        self.assertGreaterEqual(len(samples), 10)
        for file in samples:
            self.assert_valid(file.name, json.loads(file.read_text()))

    def test_the_desired_properties_of_manifest_and_layers_are_valid(self):
        seen = 0
        for file in [ROOT / "deployment.template.json", *(ROOT / "edge-config/layers").glob("*.json")]:
            for module, content in json.loads(file.read_text())["modulesContent"].items():
                for key, value in content.items() if module in OURS else []:
                    # A layer names one property of an object.
                    for name in reversed(key.removeprefix("properties.desired").split(".")[1:]):
                        value = {name: value}
                    self.assert_valid(file.name, value)
                    seen += 1
        self.assertGreaterEqual(seen, 3)

    def test_the_flows_of_an_automatic_configuration_are_valid(self):
        document = json.loads((ROOT / "edge-config/configurations/one-camera.json").read_text())
        for key, value in document["content"]["moduleContent"].items():
            for name in reversed(key.removeprefix("properties.desired").split(".")[1:]):
                value = {name: value}
            self.assert_valid(key, value)

    def test_every_example_of_the_page_is_valid(self):
        page = (ROOT / "docs/twin.md").read_text()
        examples = re.findall(r"^```json\n(.*?)^```$", page, re.M | re.S)
        self.assertGreaterEqual(len(examples), 8)
        for example in examples:
            self.assert_valid("docs/twin.md", json.loads(example))

    def test_what_the_modules_accept_is_valid(self):
        self.assertTrue(self.documents["accepted"])
        for document in self.documents["accepted"]:
            self.assert_valid("accepted", document)

    def test_what_the_modules_refuse_is_invalid(self):
        self.assertTrue(self.documents["refused"])
        for document in self.documents["refused"]:
            self.assertFalse(self.validator.is_valid(document), json.dumps(document))


class Services(unittest.TestCase):
    """What belongs to a service besides its code; whoever adds one is told what is missing."""

    def test_each_is_a_package_of_the_workspace_that_is_named_like_its_folder(self):
        members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
        for name in sorted(OURS):
            with self.subTest(service=name):
                self.assertIn(f"modules/{name}", members)
                package = tomllib.loads((ROOT / "modules" / name / "Cargo.toml").read_text())["package"]
                self.assertEqual(package["name"], name)
                self.assertTrue((BINARIES / name).is_file(), "no binary of that name is built")

    def test_each_has_a_sample_of_its_twin_and_one_for_use_without_a_hub(self):
        for name in sorted(OURS):
            with self.subTest(service=name):
                for sample in (f"edge-config/{name}.json", f"edge-config/standalone/twins/{name}.json"):
                    self.assertTrue((ROOT / sample).is_file(), f"{sample} is missing")

    def test_each_is_in_the_manifest_with_a_twin(self):
        content = json.loads((ROOT / "deployment.template.json").read_text())["modulesContent"]
        modules = content["$edgeAgent"]["properties.desired"]["modules"]
        for name in sorted(OURS):
            with self.subTest(service=name):
                self.assertEqual(modules[name]["settings"]["image"], f"${{MODULES.{name}}}")
                self.assertTrue(content[name]["properties.desired"], "no desired properties")

    def test_each_is_run_by_local_edge(self):
        for name in sorted(OURS):
            with self.subTest(service=name):
                run = subprocess.run(
                    [BINARIES / "local-edge", "module", name, "--version"],
                    capture_output=True, text=True, timeout=30, check=False,
                )
                self.assertEqual(run.returncode, 0, run.stderr)
                self.assertIn(name, run.stdout)

    def test_each_is_on_the_pages(self):
        for name in sorted(OURS):
            with self.subTest(service=name):
                self.assertIn(f"[`{name}`](modules/{name})", (ROOT / "README.md").read_text())
                self.assertIn(name, (ROOT / "docs/twin.md").read_text(), "docs/twin.md")


class Pages(unittest.TestCase):
    def test_links_between_pages_lead_somewhere(self):
        pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "edge-config/README.md"]
        seen = 0
        for page in pages:
            for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
                if link.startswith("http"):
                    continue
                path, _, anchor = link.partition("#")
                target = (page.parent / path) if path else page
                self.assertTrue(target.exists(), f"{page.name}: {link}")
                if anchor:
                    titles = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
                    anchors = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
                    self.assertIn(anchor, anchors, f"{page.name}: {link}")
                seen += 1
        self.assertGreater(seen, 40)


class Device(unittest.TestCase):
    """edge-config/config.toml beside the template."""

    @classmethod
    def setUpClass(cls):
        cls.config = tomllib.loads((ROOT / "edge-config/config.toml").read_text())
        manifest = json.loads((ROOT / "deployment.template.json").read_text())["modulesContent"]
        cls.agent = manifest["$edgeAgent"]["properties.desired"]

    def test_the_device_starts_the_agent_of_the_manifest(self):
        agent = self.agent["systemModules"]["edgeAgent"]
        ours = self.config["agent"]
        self.assertEqual(ours["config"]["image"], agent["settings"]["image"])
        self.assertEqual(ours["config"]["createOptions"], agent["settings"]["createOptions"])
        self.assertEqual({name: {"value": value} for name, value in ours["env"].items()}, agent["env"])

    def test_images_of_others_have_a_full_version(self):
        # A device that has an image of a rolling tag never looks for a newer one.
        images = {name: module["settings"]["image"] for name, module in self.agent["systemModules"].items()}
        images |= {
            name: module["settings"]["image"] for name, module in self.agent["modules"].items() if name not in OURS
        }
        self.assertGreaterEqual(len(images), 3)
        for name, image in images.items():
            self.assertRegex(image, r":\d+\.\d+\.\d+$", name)

    def test_another_authority_than_files_is_shown_and_can_be_taken(self):
        # What comes from files is renewed by nobody; the alternative stands beside it, as comment.
        self.assertEqual(set(self.config["edge_ca"]), {"cert", "pk"})
        text = (ROOT / "edge-config/config.toml").read_text()
        shown = text[text.index("# [edge_ca]") :].split("\n\n")[0]
        other = tomllib.loads(re.sub(r"^# ?", "", shown, flags=re.M))["edge_ca"]
        self.assertEqual((other["method"], "url" in other), ("est", True))
        self.assertEqual(set(other["auto_renew"]), {"rotate_key", "threshold", "retry"})

    def test_messages_of_a_month_offline_outlive_a_container(self):
        manifest = json.loads((ROOT / "deployment.template.json").read_text())["modulesContent"]
        hub = manifest["$edgeHub"]["properties.desired"]["storeAndForwardConfiguration"]
        self.assertEqual(hub["timeToLiveSecs"], 30 * 86_400)

    def test_the_page_explains_what_template_and_configuration_set(self):
        page = (ROOT / "docs/deploy.md").read_text()
        explained = {"allowed_bind_sources", "allow_elevated_docker_permissions", "`[edge_ca]`"}
        explained |= {'"PortBindings": {"8883/tcp"', "renewed by nobody", "Moby", "Podman"}
        for module in self.agent["systemModules"].values():
            explained |= set(module["env"])
            explained.add(module["settings"]["image"].rpartition(":")[2])
        for name in sorted(OURS):
            options = self.agent["modules"][name]["settings"]["createOptions"]["HostConfig"]
            explained |= set(options) - {"PortBindings"}
            row = next((row for row in page.splitlines() if row.startswith("  | ") and f"`{name}`" in row), "")
            self.assertIn(f" {options['Memory']} ", row, f"why {name} has its memory")
        for word in sorted(explained):
            self.assertIn(word, page)
        # The folder that the collector reads belongs to its user.
        (bind,) = self.agent["modules"]["metrics-collector"]["settings"]["createOptions"]["HostConfig"]["Binds"]
        self.assertIn(f"chown -R 1000 {bind.split(':')[0]}`", page)

    def test_permissions_keep_what_the_runtime_needs_and_every_folder_that_is_bound(self):
        # False takes from edgeAgent and edgeHub what their start scripts need.
        self.assertIsNot(self.config.get("allow_elevated_docker_permissions"), False)
        allowed = [pathlib.PurePosixPath(source) for source in self.config["allowed_bind_sources"]]
        bound = []
        for module in self.agent["modules"].values():
            bound += module["settings"]["createOptions"].get("HostConfig", {}).get("Binds", [])
        folders = [re.sub(r"\$\{(\w+)_DIR\}", r"/\1-DIR", bind.split(":")[0]) for bind in bound]
        folders = [pathlib.PurePosixPath(folder) for folder in folders if folder.startswith("/")]
        self.assertGreaterEqual(len(folders), 2)
        for folder in folders:
            self.assertTrue(any(folder.is_relative_to(source) for source in allowed), folder)


class Standalone(unittest.TestCase):
    """edge-config/standalone: the unit as systemd reads it, the services as docker-compose does."""

    @unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd")
    def test_the_unit_is_one(self):
        text = (ROOT / "edge-config/standalone/av@.service").read_text()
        with tempfile.TemporaryDirectory() as folder:
            # The program that it starts has to be there.
            unit = pathlib.Path(folder) / "av@.service"
            unit.write_text(text.replace("/usr/local/bin/", f"{BINARIES}/"))
            for module in OURS:
                instance = f"{folder}/av@{module}.service"
                verified = subprocess.run(
                    ["systemd-analyze", "verify", instance], capture_output=True, text=True, check=False
                )
                self.assertEqual((verified.returncode, verified.stdout + verified.stderr), (0, ""))

    @unittest.skipUnless(shutil.which("docker-compose"), "no docker-compose")
    def test_the_services_of_compose_stream_when_they_are_processes(self):
        read = subprocess.run(
            ["docker-compose", "config"],
            cwd=ROOT / "edge-config/standalone", capture_output=True, text=True, check=False,
        )
        self.assertEqual(read.returncode, 0, read.stderr)
        services = services_of(read.stdout)
        self.assertEqual(set(services), OURS)
        # Loopback addresses of their own stand for the containers'.
        addresses = {name: own_address(number) for number, name in enumerate(services, 1)}
        hosts = ",".join(f"{name}={address}" for name, address in addresses.items())
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
            for name, (command, binds) in services.items():
                at = addresses[name]
                arguments = [command_with(binds, argument) for argument in command]
                arguments += ["--bind", at, "--hosts", hosts, "--state-dir", f"{folder}/{name}"]
                arguments += ["--paths", ",".join(f"{inside}={outside}" for inside, outside in binds.items())]
                arguments[-1] += f",/var/lib/{name}={folder}/{name}"
                process = subprocess.Popen([BINARIES / name, *arguments], stderr=subprocess.DEVNULL)
                running.callback(end, process)
            states = {name: self.until_running(f"http://{address}:9600/status") for name, address in addresses.items()}
        self.assertEqual(states["mp4-source"]["flows"]["testcard"]["outputs"]["splitter"]["state"], "pushing")

    def until_running(self, url):
        deadline, status = time.monotonic() + 30, {}
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
                status = json.load(answer)
                # A machine without a display says so, and takes the stream in all the same.
                inputs = [flow["input"]["state"] for flow in status["flows"].values()]
                works = status["summary"]["running"] > 0 or (
                    status["module"]["name"] == "renderer" and inputs == ["receiving"]
                )
                if works and status["config"]["status"] == "applied":
                    return status
            time.sleep(0.1)
        self.fail(f"{url}: no flow is running: {status}")


def services_of(config):
    """By name, command and bind mounts (inside: outside) of what `docker-compose config` prints: YAML of one shape."""
    services, name, part = {}, None, None
    for line in config[: config.index("\nvolumes:")].splitlines():
        if found := re.fullmatch(r"  ([\w-]+):", line):
            name = found[1]
            services[name] = ([], {})
        elif found := re.fullmatch(r"    (\w+):.*", line):
            part = found[1]
        elif part == "command":
            services[name][0].append(line.strip().removeprefix("- ").strip("'"))
        elif part == "volumes" and (found := re.fullmatch(r"    - (/[^:]+):([^:]+):ro", line)):
            services[name][1][found[2]] = found[1]
    return services


def command_with(binds, argument):
    for inside, outside in binds.items():
        argument = argument.replace(f"{inside}/", f"{outside}/")
    return argument


class Monitoring(unittest.TestCase):
    def test_workbook_and_alerts_hold_the_queries_as_they_are(self):
        made = subprocess.run(
            [sys.executable, MONITORING / "make.py", "--check"], capture_output=True, text=True, check=False
        )
        self.assertEqual(made.returncode, 0, made.stdout + made.stderr)

    def test_queries_name_only_metrics_and_labels_that_there_are(self):
        listed = listed_metrics()
        histograms = {name: what for name, what in listed.items() if what[0] == "histogram"}
        listed |= {name + part: what for name, what in histograms.items() for part in ("_bucket", "_sum", "_count")}
        labels = {"edge_device", "module_name", "instance_number", "iothub"}
        queries = sorted(MONITORING.glob("*.kql"))
        self.assertGreaterEqual(len(queries), 8)
        for file in queries:
            text = file.read_text()
            names = re.findall(r'"((?:av|process)_\w+)"', text)
            self.assertTrue(names, file.name)
            for name in names:
                self.assertIn(name, listed, file.name)
            known = labels.union(*(listed[name][1] for name in names))
            for label in re.findall(r"\bTags\.(\w+)", text):
                self.assertIn(label, known, file.name)

    def test_every_query_and_alert_says_which_hub_it_speaks_of(self):
        for file in MONITORING.glob("*.kql"):
            code = [line.split("//")[0].strip() for line in file.read_text().splitlines()]
            sums = [line for line in code if re.search(r"(^|\s)by ", line) and "order by" not in line]
            self.assertTrue(sums, file.name)
            for line in sums:
                self.assertIn("ResourceId", line, file.name)
        rules = json.loads((MONITORING / "alerts.json").read_text())["resources"]
        for rule in rules:
            for criterion in rule["properties"]["criteria"]["allOf"]:
                self.assertEqual(criterion["resourceIdColumn"], "ResourceId", rule["name"])
        silent = next(rule["properties"] for rule in rules if rule["name"] == "av-module-silent")
        self.assertEqual((silent["autoMitigate"], silent["overrideQueryTimeRange"]), (False, "P2D"))

    def test_the_workbook_asks_for_its_workspace(self):
        items = json.loads((MONITORING / "workbook.json").read_text())["items"]
        names = [item["content"]["parameters"][0]["name"] for item in items if item["type"] == 9]
        self.assertEqual(names, ["Workspace"])
        queries = [item["content"] for item in items if item["type"] == 3]
        self.assertGreaterEqual(len(queries), 6)
        for query in queries:
            self.assertEqual(query["crossComponentResources"], ["{Workspace}"])

    def test_queries_are_what_azure_monitor_reads(self):
        if not (KUSTO / "@kusto").exists():
            self.skipTest("Microsoft's parser of queries is not installed")
        if not shutil.which("node"):
            self.skipTest("no node")
        read = subprocess.run(
            ["node", ROOT / "tests/deployment/kusto/check.js", *sorted(MONITORING.glob("*.kql"))],
            env=os.environ | {"NODE_PATH": str(KUSTO)}, capture_output=True, text=True, check=False,
        )
        self.assertEqual((read.returncode, read.stdout + read.stderr), (0, ""))

    def test_every_reason_of_a_trouble_has_its_words_in_the_workbook(self):
        code = (ROOT / "modules/shared/flow/src/trouble.rs").read_text()
        reasons = re.findall(r"^    \w+ = (\d+),$", code, re.M)
        query = (MONITORING / "flows-down.kql").read_text()
        self.assertGreaterEqual(len(reasons), 13)
        self.assertEqual(re.findall(r'^    (\d+), "', query, re.M), reasons)

    def test_the_list_of_metrics_is_what_a_module_shows(self):
        source = BINARIES / "mp4-source"
        if not source.exists():
            self.skipTest(f"{source} is not built")
        with tempfile.TemporaryDirectory() as folder:
            address = own_address(0)
            twin = pathlib.Path(folder) / "twin.json"
            url = "rtmp://0.0.0.0:1935/files/card"
            flow = {"input": {"read": "file:///media/testcard.mp4"}, "outputs": {"viewers": {"serve": url}}}
            twin.write_text(json.dumps({"flows": {"card": flow}}))
            arguments = ["--twin", twin, "--state-dir", folder, "--bind", address]
            arguments += ["--metrics-address", f"{address}:9600", "--paths", f"/media={ROOT}/edge-config"]
            module = subprocess.Popen([source, *arguments], stderr=subprocess.DEVNULL)
            try:
                text = self.until_frames_arrive(f"http://{address}:9600/metrics")
            finally:
                end(module)
        shown = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
        listed = listed_metrics("mp4-source")
        self.assertEqual(shown, {name: kind for name, (kind, _) in listed.items()})
        shared = {"iothub", "edge_device", "module_name", "instance_number"}
        for name, (kind, labels) in listed.items():
            suffix = "_count" if kind == "histogram" else ""
            series = re.findall(rf"^{name}{suffix}(?:{{(.*)}})? ", text, re.M)
            # The histogram has series once something was served.
            for one in series:
                self.assertEqual(set(re.findall(r'(\w+)="', one)), shared | set(labels), name)
            self.assertTrue(series, name)

    def until_frames_arrive(self, url):
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    text = answer.read().decode()
                if re.search(r"^av_input_frames_total{.*} [1-9]", text, re.M):
                    return text
            except OSError:
                text = ""
            self.assertLess(time.monotonic(), deadline, f"no frames: {text}")
            time.sleep(0.1)


class Image(unittest.TestCase):
    """What names an image; tests/image builds it and runs it."""

    def test_every_module_is_built_from_its_own_name_with_a_file_that_exists(self):
        modules = list((ROOT / "modules").glob("*/module.json"))
        self.assertGreaterEqual(len(modules), 2)
        for file in modules:
            image = json.loads(file.read_text())["image"]
            name = file.parent.name
            self.assertEqual(image["repository"], f"${{REGISTRY}}/{name}")
            self.assertIn(f"--build-arg MODULE={name}", image["buildOptions"])
            self.assertEqual((file.parent / image["contextPath"]).resolve(), ROOT)
            self.assertEqual(sorted(image["tag"]["platforms"]), ["amd64", "arm64v8"])
            for dockerfile in image["tag"]["platforms"].values():
                self.assertTrue((file.parent / dockerfile).is_file(), dockerfile)


if __name__ == "__main__":
    skipped.main("deployment", verbosity=2)
