//! Supervision of real processes.

use super::*;

const LONG: Duration = Duration::from_secs(20);

struct Bench {
    log: Arc<Log>,
    process: Supervised,
}

impl Bench {
    fn start(script: &str, restart: RestartPolicy, stop_timeout: Duration) -> Self {
        Self::start_with(script, restart, stop_timeout, true)
    }

    fn start_with(script: &str, restart: RestartPolicy, stop_timeout: Duration, running: bool) -> Self {
        let log = Arc::new(Log::in_memory());
        let launch = Launch {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("AV_GIVEN".into(), "given".into())],
            restart,
            pace: Pace::DESK,
            stop_timeout,
        };
        Self { process: Supervised::begin(launch, Arc::clone(&log), running), log }
    }

    async fn until(&mut self, what: impl FnMut(&ProcessStatus) -> bool) -> ProcessStatus {
        let found = tokio::time::timeout(LONG, self.process.status.wait_for(what)).await;
        found.expect("a state in time").unwrap().clone()
    }

    async fn line(&self, text: &str) {
        let (lines, mut live) = self.log.tail(1000);
        if lines.iter().any(|line| line.contains(text)) {
            return;
        }
        let found = async { while !live.recv().await.unwrap().contains(text) {} };
        tokio::time::timeout(LONG, found).await.expect("a line in time");
    }
}

fn running(status: &ProcessStatus) -> bool {
    matches!(status.state, ProcessState::Running { .. })
}

#[tokio::test]
async fn output_on_both_streams_and_the_environment_arrive() {
    let mut bench = Bench::start("echo out $AV_GIVEN; echo err >&2", RestartPolicy::Never, LONG);
    bench.until(|status| matches!(status.state, ProcessState::Ended { .. })).await;
    bench.line("out given").await;
    bench.line("err").await;
}

#[tokio::test]
async fn nothing_of_this_machines_environment_is_in_a_modules() {
    let mut bench = Bench::start("echo all $(env | cut -d= -f1 | sort)", RestartPolicy::Never, LONG);
    bench.until(|status| matches!(status.state, ProcessState::Ended { .. })).await;
    let (lines, _) = bench.log.tail(1000);
    let names = lines.iter().find_map(|line| line.strip_prefix("all ")).expect("a line");
    // The shell sets some by itself.
    let given: Vec<&str> =
        names.split(' ').filter(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(name)).collect();
    assert_eq!(given, ["AV_GIVEN", "PATH"]);
}

#[test]
fn a_device_waits_ten_seconds_and_ever_longer_up_to_five_minutes() {
    let waits: Vec<u64> = (0..8).map(|failures| Pace::DEVICE.delay(failures).as_secs()).collect();
    assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
    assert_eq!(Pace::DEVICE.cleared_after, Duration::from_secs(600));
}

#[tokio::test]
async fn under_the_rules_of_a_device_a_module_that_ends_too_often_is_left_alone_until_somebody_asks() {
    let log = Arc::new(Log::in_memory());
    let pace = Pace { first: Duration::from_millis(1), longest: Duration::from_millis(1), ..Pace::DEVICE };
    let launch = Launch {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), "exit 1".into()],
        env: Vec::new(),
        restart: RestartPolicy::Always,
        pace,
        stop_timeout: LONG,
    };
    let mut bench = Bench { process: Supervised::begin(launch, Arc::clone(&log), true), log };
    let given_up = bench.until(|status| matches!(status.state, ProcessState::Failed { .. })).await;
    assert_eq!(given_up.restarts, 20);
    bench.process.restart();
    bench.until(|status| status.restarts > AGENT_GIVES_UP).await;
    bench.process.stop().await;
}

#[tokio::test]
async fn a_module_that_ends_is_started_again_after_a_pause() {
    let mut bench = Bench::start("exit 3", RestartPolicy::Always, LONG);
    let first = bench.until(|status| matches!(status.state, ProcessState::BackOff { .. })).await;
    assert_eq!(first.state, ProcessState::BackOff { ended: "exit code 3".into(), delay: 500 });
    let later = |status: &ProcessStatus| matches!(status.state, ProcessState::BackOff { delay: 1000, .. });
    assert_eq!(bench.until(later).await.restarts, 1);
    bench.process.stop().await;
}

#[tokio::test]
async fn on_failure_leaves_a_module_that_ended_well_and_never_leaves_any() {
    let mut well = Bench::start("exit 0", RestartPolicy::OnFailure, LONG);
    let ended = well.until(|status| matches!(status.state, ProcessState::Ended { .. })).await;
    assert_eq!(ended.state, ProcessState::Ended { ended: "exit code 0".into() });
    let mut badly = Bench::start("kill -9 $$", RestartPolicy::OnFailure, LONG);
    let ended = badly.until(|status| matches!(status.state, ProcessState::BackOff { .. })).await;
    assert!(matches!(ended.state, ProcessState::BackOff { ended, .. } if ended == "killed by signal 9"));
    let mut never = Bench::start("exit 1", RestartPolicy::Never, LONG);
    never.until(|status| matches!(status.state, ProcessState::Ended { .. })).await;
}

#[tokio::test]
async fn stopping_sends_sigterm_and_waits_for_last_words() {
    let script = "trap 'echo goodbye; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let bench = Bench::start(script, RestartPolicy::Always, LONG);
    bench.line("ready").await;
    let Bench { log, process } = bench;
    process.stop().await;
    assert!(log.tail(10).0.iter().any(|line| line.contains("goodbye")));
}

#[tokio::test]
async fn a_module_that_ignores_sigterm_is_killed_with_all_that_it_started() {
    let script = "trap '' TERM; echo child $$; sleep 1000 & wait; while :; do sleep 0.05; done";
    let bench = Bench::start(script, RestartPolicy::Always, Duration::from_millis(100));
    bench.line("child").await;
    let lines = bench.log.tail(10).0;
    let group: i32 = lines.iter().find_map(|line| line.strip_prefix("child ")?.parse().ok()).unwrap();
    let Bench { log, process } = bench;
    tokio::time::timeout(LONG, process.stop()).await.expect("killed in time");
    assert!(log.tail(10).0.iter().any(|line| line.contains("killed")));
    let group = Pid::from_raw(group).unwrap();
    let gone = async {
        while rustix::process::test_kill_process_group(group).is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, gone).await.expect("nobody of the group is left");
}

#[tokio::test]
async fn a_restart_on_demand_gives_a_new_process_at_once() {
    let mut bench = Bench::start("echo begun; exec sleep 1000", RestartPolicy::Always, LONG);
    let first = bench.until(running).await;
    bench.process.restart();
    let second = bench.until(|status| running(status) && status.state != first.state).await;
    assert_eq!(second.restarts, 1);
    bench.process.stop().await;
}

#[tokio::test]
async fn a_module_that_the_manifest_has_stopped_starts_on_demand_only() {
    let mut bench = Bench::start_with("exec sleep 1000", RestartPolicy::Always, LONG, false);
    assert_eq!(bench.process.status.borrow().state, ProcessState::Stopped);
    bench.process.restart();
    bench.until(running).await;
    bench.process.stop().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_says_so_and_is_tried_again() {
    let launch = Launch {
        program: "/nowhere/program".into(),
        args: Vec::new(),
        env: Vec::new(),
        restart: RestartPolicy::Always,
        pace: Pace::DESK,
        stop_timeout: LONG,
    };
    let process = Supervised::begin(launch, Arc::new(Log::in_memory()), true);
    let mut status = process.status.clone();
    let failed = status.wait_for(|s| matches!(s.state, ProcessState::Failed { .. }) && s.restarts == 1);
    let failed = tokio::time::timeout(LONG, failed).await.unwrap().unwrap().clone();
    assert!(
        matches!(failed.state, ProcessState::Failed { error } if error.starts_with("/nowhere/program: "))
    );
    process.stop().await;
}
