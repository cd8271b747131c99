use std::sync::Mutex as StdMutex;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::slot::LINGER;
use super::*;
use crate::rtmp::peer::{module, soon};

/// A protocol that greets nobody: connections go to whoever looks at the port.
struct Plain;

#[derive(Default)]
struct Met(StdMutex<Option<mpsc::UnboundedSender<SocketAddr>>>);

impl Protocol for Plain {
    const NAME: &'static str = "plain talk";
    type State = Met;
    type Publish = ();
    type Play = ();

    async fn run(accepted: Accepted<Self>) {
        if let Some(met) = &*accepted.port.state.0.lock().unwrap() {
            let _ = met.send(accepted.peer);
        }
    }
}

struct Other;

impl Protocol for Other {
    const NAME: &'static str = "another";
    type State = ();
    type Publish = ();
    type Play = ();

    async fn run(_: Accepted<Self>) {}
}

fn free_address() -> SocketAddr {
    // Nobody else is given this port so soon.
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn open(module: &Arc<Module>, address: SocketAddr) -> Result<Lease<Plain>, OpenError> {
    module.listeners.open(module, address, None).await
}

fn is_listened_on(address: SocketAddr) -> bool {
    Listener::bind(address).is_err()
}

/// Waits for something to be so; in paused time that takes no time.
async fn until(so: impl Fn() -> bool) {
    soon("a condition", async {
        while !so() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_is_let_go_is_found_open_again() {
    let (module, address) = (module(), free_address());
    let first = open(&module, address).await.unwrap();
    let port = first.port().clone();
    drop(first);
    sleep(LINGER - Duration::from_millis(10)).await;
    let second = open(&module, address).await.unwrap();
    assert!(Arc::ptr_eq(&port, second.port()));
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_is_leased_again_and_again_is_not_closed_by_a_timer_of_before() {
    let (module, address) = (module(), free_address());
    let port = open(&module, address).await.unwrap().port().clone();
    for _ in 0..10 {
        // Each time but for a moment: timers that began earlier run out meanwhile.
        sleep(LINGER - Duration::from_millis(300)).await;
        let lease = open(&module, address).await.unwrap();
        assert!(Arc::ptr_eq(&port, lease.port()));
    }
    assert!(is_listened_on(address));
    sleep(LINGER - Duration::from_millis(10)).await;
    assert!(is_listened_on(address));
    let began = Instant::now();
    until(|| !is_listened_on(address)).await;
    assert!(began.elapsed() < Duration::from_millis(20));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_just_being_closed_is_waited_for() {
    let (module, address) = (module(), free_address());
    drop(open(&module, address).await.unwrap());
    let slot = module.listeners.lock().get(&address).unwrap().clone();
    assert!(slot.close_unless_leased());
    // The socket is still open, and nobody else is to blame.
    let again = open(&module, address).await.unwrap();
    assert!(!Arc::ptr_eq(&slot, &again.slot));
}

#[tokio::test(start_paused = true)]
async fn what_only_lingers_makes_room_for_an_address_that_overlaps() {
    let (module, address) = (module(), free_address());
    let lease = open(&module, address).await.unwrap();
    let all = SocketAddr::from(([0, 0, 0, 0], address.port()));
    let refused = open(&module, all).await.err().unwrap().to_string();
    assert_eq!(
        refused,
        format!(
            "{all} can't be used beside {address}, on which this module listens; use one of them for both"
        )
    );
    drop(lease);
    open(&module, all).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_protocols_do_not_share_an_address_and_each_is_named() {
    let (module, address) = (module(), free_address());
    let lease = open(&module, address).await.unwrap();
    let refused = module.listeners.open::<Other>(&module, address, None).await.err().unwrap().to_string();
    assert_eq!(
        refused,
        format!("{address} is in use by this module for plain talk; choose another port for another")
    );
    drop(lease);
    module.listeners.open::<Other>(&module, address, None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_address_without_tls_is_not_shared_with_one_that_has_it() {
    let (module, address) = (module(), free_address());
    let _lease = open(&module, address).await.unwrap();
    let tls = ServerTls::default();
    let refused = module.listeners.open::<Plain>(&module, address, Some(&tls)).await;
    assert!(matches!(refused, Err(OpenError::OtherTls(_))));
}

#[tokio::test(start_paused = true)]
async fn another_program_is_blamed_only_where_there_is_one() {
    let (module, address) = (module(), free_address());
    let other = Listener::bind(address).unwrap();
    assert!(matches!(open(&module, address).await, Err(OpenError::Listen(ListenError::InUse(_)))));
    drop(other);
    open(&module, address).await.unwrap();
}

#[tokio::test]
async fn a_connection_is_run_by_the_protocol_of_its_port_and_counted_until_it_ends() {
    let (module, address) = (module(), free_address());
    let lease = open(&module, address).await.unwrap();
    let (met, mut meets) = mpsc::unbounded_channel();
    *lease.port().state.0.lock().unwrap() = Some(met);
    let client = soon("a connection", TcpStream::connect(address)).await.unwrap();
    assert_eq!(soon("the peer", meets.recv()).await, Some(client.local_addr().unwrap()));
    soon("all to leave", module.listeners.drained(Duration::from_secs(60))).await;
    assert_eq!(module.listeners.connections(), 0);
}

#[test]
fn a_wildcard_overlaps_with_what_it_takes() {
    let overlap = |one: &str, other: &str| {
        let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
        assert_eq!(overlap(one, other), overlap(other, one));
        overlap(one, other)
    };
    assert!(overlap("0.0.0.0:1935", "10.0.0.1:1935"));
    assert!(overlap("[::]:1935", "10.0.0.1:1935"));
    assert!(overlap("[::]:1935", "0.0.0.0:1935"));
    assert!(overlap("[::]:1935", "[fe80::1]:1935"));
    assert!(!overlap("0.0.0.0:1935", "[fe80::1]:1935"));
    assert!(!overlap("0.0.0.0:1935", "10.0.0.1:1936"));
    assert!(!overlap("10.0.0.1:1935", "10.0.0.2:1935"));
}

#[tokio::test(start_paused = true)]
async fn what_is_leased_again_is_not_waited_for_and_what_closes_is_whoever_closed_it() {
    let (module, address) = (module(), free_address());
    let first = open(&module, address).await.unwrap();
    let slot = first.slot.clone();
    drop(first);
    let again = open(&module, address).await.unwrap();
    // As for one that saw it linger before.
    assert!(!slot.close_unless_leased());
    drop(again);
    assert!(slot.close_unless_leased() && slot.close_unless_leased());
}
