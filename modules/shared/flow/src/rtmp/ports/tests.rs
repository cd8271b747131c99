use super::*;
use crate::rtmp::peer::{module, stream};

fn url(address: SocketAddr) -> ListenUrl {
    ListenUrl { scheme: crate::rtmp::options::RTMP, address, path: "live/a".into() }
}

fn free_address() -> SocketAddr {
    // Nobody else is given this port so soon.
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn input() -> InputContext {
    let stream = stream();
    InputContext {
        module: module(),
        flow: "dock".into(),
        path: "flows.dock.input".into(),
        status: stream.input().clone(),
        stream,
        idle_timeout: Duration::from_secs(10),
        instances: None,
        cancel: CancellationToken::new(),
    }
}

fn route(input: &InputContext, takeover: bool) -> Arc<PublishRoute> {
    let config = ListenConfig {
        url: url(SocketAddr::from(([127, 0, 0, 1], 1935))),
        takeover,
        auth: None,
        allow: Vec::new(),
        max_message_bytes: 1 << 20,
        tls: ServerTls::default(),
    };
    PublishRoute::new(input, &config, Target::Stream(input.clone()))
}

fn who(program: &str) -> Identity {
    Identity { address: [127, 0, 0, 1].into(), program: program.into() }
}

#[tokio::test]
async fn a_listener_that_is_let_go_is_found_open_again() {
    let (module, url) = (module(), url(free_address()));
    let first = module.ports.open(&module, &url, &ServerTls::default()).await.unwrap();
    let port = first.port.clone();
    drop(first);
    let second = module.ports.open(&module, &url, &ServerTls::default()).await.unwrap();
    assert!(Arc::ptr_eq(&port, &second.port));
}

#[tokio::test]
async fn what_only_lingers_makes_room_for_an_address_that_overlaps() {
    let (module, address) = (module(), free_address());
    let lease = module.ports.open(&module, &url(address), &ServerTls::default()).await.unwrap();
    let all = url(SocketAddr::from(([0, 0, 0, 0], address.port())));
    let refused = module.ports.open(&module, &all, &ServerTls::default()).await;
    assert!(matches!(refused, Err(OpenError::Listen(ListenError::InUse(_)))));
    drop(lease);
    module.ports.open(&module, &all, &ServerTls::default()).await.unwrap();
}

#[tokio::test]
async fn one_who_publishes_is_not_displaced_where_the_second_is_refused() {
    let input = input();
    let route = route(&input, false);
    let first = route.seat("live/a", who("a"), &input, Kick::default()).unwrap();
    assert_eq!(route.seat("live/a", who("b"), &input, Kick::default()).unwrap_err(), Taken::Reject);
    drop(first);
    route.seat("live/a", who("b"), &input, Kick::default()).unwrap();
}

#[tokio::test]
async fn nobody_is_seated_by_an_endpoint_that_is_ending() {
    let input = input();
    let route = route(&input, true);
    let present = route.seat("live/a", who("a"), &input, Kick::default()).unwrap();
    input.cancel.cancel();
    assert_eq!(route.seat("live/a", who("b"), &input, Kick::default()).unwrap_err(), Taken::Over);
    assert!(input.stream.has_publisher());
    drop(present);
}
