//! A virtual machine with a graphics card and a sound card: Debian's kernel on the root folder of this machine, which it
//! reads and can't change. See `tests/machine`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::Program;
use crate::screen::{card_of, rises};
use crate::tool::{self, Tool};
use crate::{http, module, port, wait};

/// What a program in there may take where no processor helps: ten times as long as out here.
const SLOW: Duration = Duration::from_secs(180);
/// Where the guest's loopback ends: this machine's, as the guest sees it.
pub const HOST: &str = "10.0.2.2";
/// The module's user, and Debian's groups `video` and `audio`.
const USER: &str = "setpriv --reuid 10001 --regid 10001 --inh-caps=-all";

/// Two at once would take each other's time.
static ONE: Mutex<()> = Mutex::new(());

/// A running machine.
pub struct Machine {
    shell: UnixStream,
    program: Program,
    dir: TempDir,
    /// The renderers' metrics, inside and out here.
    ports: [(u16, u16); 2],
    _one: MutexGuard<'static, ()>,
}

/// Who a renderer in the machine runs as.
#[derive(Clone, Copy, Debug)]
pub enum User {
    /// Root.
    Root,
    /// The image's user, in no group.
    Plain,
    /// The image's user in the groups of screens and speakers.
    InGroups,
}

impl Machine {
    /// Starts one with a graphics card, QEMU's device of that name and options, that has so many connectors.
    pub fn start(graphics: &str, connectors: usize) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::Builder::new().prefix("machine-").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let share = dir.path();
        std::fs::copy(tool::binary("renderer"), share.join("renderer")).unwrap();
        std::fs::copy(tool::tests_dir().join("machine/start"), share.join("start")).unwrap();
        // The list of elements, which takes the guest half a minute to make.
        let registry = share.join("registry");
        Program::run(
            Command::new("gst-inspect-1.0").arg("kmssink").env("GST_REGISTRY", &registry),
            wait::LONG,
        );
        std::fs::set_permissions(&registry, PermissionsExt::from_mode(0o644)).unwrap();
        let ports = [(9600, port::free()), (9601, port::free())];
        let program = Program::start(&mut qemu(share, graphics, connectors, &ports));
        let connected =
            wait::until("QEMU listens", wait::LONG, || UnixStream::connect(share.join("shell")).ok());
        connected.set_read_timeout(Some(SLOW)).unwrap();
        let machine = Self { shell: connected, program, dir, ports, _one: one };
        // What is written before the shell is there is lost.
        machine.heard("the shell");
        machine
    }

    /// What a command of the guest's shell says, which is one line, as root.
    pub fn run(&self, command: &str) -> String {
        writeln!(&self.shell, "{command}").unwrap();
        self.heard(command)
    }

    fn heard(&self, command: &str) -> String {
        let (mut said, mut piece) = (String::new(), [0; 4096]);
        while !said.contains("<done>") {
            let length = (&self.shell).read(&mut piece).unwrap_or_else(|error| {
                panic!("{command}: {error}: {said}\n{}\n{}", self.console(), self.program.stderr())
            });
            assert!(length > 0, "{command}: the machine has ended: {}", self.program.stderr());
            said.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
        said.split("<done>").next().unwrap().trim().to_owned()
    }

    /// What the kernel says.
    pub fn console(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("console")).unwrap_or_default()
    }

    /// Starts the renderer in there; `number` tells two of them apart.
    pub fn render(&self, number: usize, user: User, twin: &Value) -> Rendering<'_> {
        let rendering = Rendering { machine: self, number, process: String::new() };
        rendering.set_twin(twin);
        let user = match user {
            User::Root => String::new(),
            User::Plain => format!("{USER} --clear-groups"),
            User::InGroups => format!("{USER} --groups 44,29"),
        };
        let inside = self.ports[number].0;
        let process = self.run(&format!(
            "mkdir -p /run/{number}; chmod 777 /run/{number}; GST_REGISTRY=/run/share/registry GST_REGISTRY_UPDATE=no HOME=/run/{number} {user} /run/share/renderer \
             --twin /run/share/{number}.json --state-dir /run/{number} --metrics-address 0.0.0.0:{inside} \
             </dev/null >/run/share/{number}.log 2>&1 & echo $!"
        ));
        Rendering { process, ..rendering }
    }

    /// Starts `local-edge` in there, as root, with the renderer as its only module.
    pub fn start_edge(&self, flows: &Value) {
        let share = self.dir.path();
        std::fs::copy(tool::binary("local-edge"), share.join("local-edge")).unwrap();
        let text = std::fs::read_to_string(tool::repository().join("deployment.template.json")).unwrap();
        let mut manifest: Value = serde_json::from_str(&text).unwrap();
        let content = manifest["modulesContent"].as_object_mut().unwrap();
        content.retain(|name, _| name.starts_with('$') || name == "renderer");
        content["renderer"]["properties.desired"]["flows"] = flows.clone();
        let modules = &mut content["$edgeAgent"]["properties.desired"]["modules"];
        modules.as_object_mut().unwrap().retain(|name, _| name == "renderer");
        modules["renderer"]["settings"]["image"] = "renderer:1".into();
        modules["renderer"]["env"] = json!({
            "GST_REGISTRY": { "value": "/run/share/registry" }, "GST_REGISTRY_UPDATE": { "value": "no" },
        });
        std::fs::write(share.join("manifest.json"), manifest.to_string()).unwrap();
        self.run(
            "/run/share/local-edge --state-dir /run/edge up --manifest /run/share/manifest.json \
             </dev/null >/run/share/edge.log 2>&1 &",
        );
    }

    /// Status and payload of what the renderer answers to a direct method. Null while it can't be asked.
    pub fn method(&self, name: &str, payload: &Value) -> Value {
        self.run(&format!(
            "/run/share/local-edge --state-dir /run/edge method renderer {name} '{payload}' >/run/share/answer 2>&1"
        ));
        let answer = std::fs::read_to_string(self.dir.path().join("answer")).unwrap();
        serde_json::from_str(&answer).unwrap_or_default()
    }

    /// What `local-edge` in there says.
    pub fn edge_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("edge.log")).unwrap_or_default()
    }

    /// What is on the panel behind a connector, which counts from 0.
    pub fn shot(&self, connector: usize) -> PathBuf {
        let file = self.dir.path().join("shot.ppm");
        let mut line = UnixStream::connect(self.dir.path().join("control")).unwrap();
        line.set_read_timeout(Some(SLOW)).unwrap();
        let mut answers = BufReader::new(line.try_clone().unwrap()).lines();
        let mut ask = |command: Value| {
            writeln!(line, "{command}").unwrap();
            let mut answers =
                answers.by_ref().map(|answer| serde_json::from_str::<Value>(&answer.unwrap()).unwrap());
            answers.find(|answer| answer.get("return").or(answer.get("error")).is_some()).unwrap()
        };
        ask(json!({ "execute": "qmp_capabilities" }));
        let arguments = json!({ "filename": file, "device": "graphics", "head": connector });
        let answer = ask(json!({ "execute": "screendump", "arguments": arguments }));
        assert!(answer.get("return").is_some(), "{answer}");
        file
    }

    /// The number of the test card that is on that panel, once it has gone through a filter of ffmpeg's.
    pub fn card(&self, connector: usize, filter: &str) -> Option<u64> {
        card_of(&self.shot(connector), filter)
    }

    /// Plugs in a panel of that size, as a viewer of the connector does that makes its window so large.
    pub fn plug(&self, connector: usize, (width, height): (u16, u16)) {
        let line = UnixStream::connect(self.dir.path().join(format!("viewer{connector}"))).unwrap();
        line.set_read_timeout(Some(SLOW)).unwrap();
        let read = |length: usize| {
            let mut bytes = vec![0; length];
            (&line).read_exact(&mut bytes).unwrap();
            bytes
        };
        // RFC 6143: version, no security, a shared session, the size of now.
        read(12);
        (&line).write_all(b"RFB 003.008\n").unwrap();
        let kinds = read(1)[0];
        read(kinds.into());
        (&line).write_all(&[1]).unwrap();
        read(4);
        (&line).write_all(&[1]).unwrap();
        let name = read(24)[23];
        read(name.into());
        // The encoding that says a client may change the size (-308), and the change: one screen.
        (&line).write_all(&[2, 0, 0, 1, 0xff, 0xff, 0xfe, 0xcc]).unwrap();
        let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
        (&line).write_all(&[&[251, 0][..], &size, &[1, 0], &[0; 8], &size, &[0; 4]].concat()).unwrap();
        // What it answers has been done before.
        (&line).write_all(&[3, 0, 0, 0, 0, 0, 0, 1, 0, 1]).unwrap();
        read(1);
    }

    /// When the sound card has begun to play something loud in its last twelve seconds, in seconds since then.
    pub fn beeps(&self) -> Vec<f64> {
        // 44,100 samples a second of two channels with 16 bits each, behind a header; windows of 10 ms.
        const WINDOW: u64 = 441 * 4;
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(self.dir.path().join("sound.wav")) {
            let windows = file.metadata().unwrap().len().saturating_sub(44) / WINDOW;
            file.seek(SeekFrom::Start(44 + windows.saturating_sub(1200) * WINDOW)).unwrap();
            file.read_to_end(&mut bytes).unwrap();
        }
        let windows = bytes.chunks_exact(WINDOW as usize);
        let loud = windows.enumerate().map(|(number, window)| {
            let samples = window.chunks_exact(2).map(|sample| i16::from_le_bytes([sample[0], sample[1]]));
            (number as f64 / 100.0, f64::from(samples.map(i16::unsigned_abs).max().unwrap_or(0)))
        });
        rises(&loud.collect::<Vec<_>>(), 3000.0)
    }
}

/// A renderer in a machine.
pub struct Rendering<'a> {
    machine: &'a Machine,
    number: usize,
    process: String,
}

impl Rendering<'_> {
    /// Replaces its configuration.
    pub fn set_twin(&self, twin: &Value) {
        let file = self.machine.dir.path().join(format!("{}.json", self.number));
        let aside = file.with_extension("new");
        std::fs::write(&aside, twin.to_string()).unwrap();
        std::fs::rename(aside, file).unwrap();
    }

    /// Null while it does not answer.
    pub fn status(&self) -> Value {
        let answer = http::get(self.machine.ports[self.number].1, "/status");
        answer.and_then(|(_, body)| serde_json::from_str(&body).ok()).unwrap_or(Value::Null)
    }

    /// Waits until the value at `pointer` of its status fits.
    pub fn wait_status(&self, pointer: &str, fits: impl Fn(&Value) -> bool) -> Value {
        module::wait_status(SLOW, || self.status(), || self.log(), pointer, fits)
    }

    /// Waits until it equals `wanted`.
    pub fn wait_value(&self, pointer: &str, wanted: &str) {
        self.wait_status(pointer, |value| value == wanted);
    }

    /// Waits until it is a text with `part` in it.
    pub fn wait_says(&self, pointer: &str, part: &str) {
        self.wait_status(pointer, |value| value.as_str().is_some_and(|text| text.contains(part)));
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.machine.dir.path().join(format!("{}.log", self.number)))
            .unwrap_or_default()
    }

    /// Ends it.
    pub fn end(self) {
        let process = &self.process;
        self.machine.run(&format!("kill {process}; while kill -0 {process} 2>/dev/null; do sleep 0.1; done"));
    }
}

/// Waits as long as a machine may take.
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    wait::until_true(what, SLOW, condition);
}

fn qemu(share: &Path, graphics: &str, connectors: usize, ports: &[(u16, u16)]) -> Command {
    let boot = tool::tests_dir().join(".tools/machine");
    let at = |name: &str| share.join(name).display().to_string();
    let mut command = Tool::Machine.command();
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-machine",
        "q35",
        "-smp",
        "2",
        "-m",
        "1G",
    ]);
    command.args(["-display", "none"]);
    command.args(if is_virtual_by_hardware() {
        ["-accel", "kvm", "-cpu", "host"]
    } else {
        ["-accel", "tcg,thread=multi", "-cpu", "max"]
    });
    command.arg("-kernel").arg(boot.join("kernel")).arg("-initrd").arg(boot.join("initramfs"));
    command.args(["-append", "console=ttyS0 quiet net.ifnames=0 panic=-1"]);
    for (folder, name, access) in
        [("/", "host", "readonly=on,multidevs=remap"), (&at(""), "share", "readonly=off")]
    {
        command
            .args(["-virtfs", &format!("local,path={folder},mount_tag={name},security_model=none,{access}")]);
    }
    let forwards =
        ports.iter().map(|(inside, outside)| format!(",hostfwd=tcp:127.0.0.1:{outside}-:{inside}"));
    command.args(["-netdev", &format!("user,id=net{}", forwards.collect::<String>())]);
    command.args(["-device", "virtio-net-pci,netdev=net", "-device", &format!("{graphics},id=graphics")]);
    for connector in 0..connectors {
        let viewer = at(&format!("viewer{connector}"));
        command.args(["-vnc", &format!("unix:{viewer},id=v{connector},display=graphics,head={connector}")]);
    }
    // A mixer would be muted, as those of most cards are until somebody turns them up.
    command.args(["-audiodev", &format!("wav,id=sound,path={}", at("sound.wav"))]);
    command.args(["-device", "intel-hda", "-device", "hda-output,audiodev=sound,mixer=off"]);
    command.args(["-qmp", &format!("unix:{},server=on,wait=off", at("control"))]);
    command.args(["-serial", &format!("file:{}", at("console"))]);
    command.args(["-serial", &format!("unix:{},server=on,wait=off", at("shell"))]);
    command
}

/// Whether the processor has what KVM needs: within some virtual machines it is there without, and slower than emulation.
fn is_virtual_by_hardware() -> bool {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let helps = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    helps && std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}
