//! A bad network between a publisher by UDP and its server: what becomes of each packet of media is said by the test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::{port, wait};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Arrives,
    /// It is lost.
    Lost,
    /// The next one overtakes it.
    Late,
}

/// Takes one RTSP connection and passes it on; ends when it is dropped.
pub struct Relay {
    /// Where publishers connect to.
    pub port: u16,
    over: Arc<AtomicBool>,
}

/// Both sockets of a medium, on an even port and the next.
struct Pair {
    first: u16,
    rtp: UdpSocket,
    rtcp: UdpSocket,
}

impl Pair {
    fn open() -> Self {
        wait::until("two free ports", wait::LONG, || {
            let first = port::free() & !1;
            let rtp = UdpSocket::bind(("127.0.0.1", first)).ok()?;
            let rtcp = UdpSocket::bind(("127.0.0.1", first + 1)).ok()?;
            for socket in [&rtp, &rtcp] {
                socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            }
            Some(Self { first, rtp, rtcp })
        })
    }

    fn ports(&self) -> String {
        format!("{}-{}", self.first, self.first + 1)
    }
}

impl Relay {
    /// To that port of 127.0.0.1; `fate` is asked for each packet of media, by its number over all media.
    pub fn start(server: u16, fate: fn(u64) -> Fate) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        std::thread::spawn(move || {
            let (publisher, _) = listener.accept().unwrap();
            pass_on(publisher, server, fate, &ends);
        });
        Self { port, over }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Exchanges the ports of both sides for those of the relay.
fn pass_on(publisher: TcpStream, server: u16, fate: fn(u64) -> Fate, over: &Arc<AtomicBool>) {
    let to_server = TcpStream::connect(("127.0.0.1", server)).unwrap();
    let (up, down) = (Mutex::new(Vec::new()), Arc::new(Mutex::new(0)));
    let up = Arc::new(up);
    let (mut from, mut to) = (publisher.try_clone().unwrap(), to_server.try_clone().unwrap());
    let asked = up.clone();
    std::thread::spawn(move || {
        messages(&mut from, &mut to, |head| {
            replaced(&head, "client_port=", |_| {
                let pair = Pair::open();
                let ports = pair.ports();
                asked.lock().unwrap().push(pair);
                ports
            })
        });
    });
    let (mut from, mut to) = (to_server, publisher);
    let over = over.clone();
    messages(&mut from, &mut to, |head| {
        replaced(&head, "server_port=", |ports| {
            let server = ports.split('-').next().unwrap().parse().unwrap();
            let (near, far) = (Pair::open(), up.lock().unwrap().pop().expect("SETUP before its answer"));
            let ports = near.ports();
            let (count, media_over) = (down.clone(), over.clone());
            let (media, out) = (near.rtp, far.rtp);
            std::thread::spawn(move || carry(&media, &out, server, &count, fate, &media_over));
            let (reports, out, reports_over) = (near.rtcp, far.rtcp, over.clone());
            let none = Arc::new(Mutex::new(0));
            std::thread::spawn(move || {
                carry(&reports, &out, server + 1, &none, |_| Fate::Arrives, &reports_over);
            });
            ports
        })
    });
}

fn carry(
    from: &UdpSocket,
    out: &UdpSocket,
    to: u16,
    count: &Mutex<u64>,
    fate: fn(u64) -> Fate,
    over: &AtomicBool,
) {
    let mut buffer = vec![0; 65536];
    let mut late: Option<Vec<u8>> = None;
    let send = |packet: &[u8]| {
        out.send_to(packet, ("127.0.0.1", to)).unwrap();
    };
    while !over.load(Ordering::Relaxed) {
        let Ok(length) = from.recv(&mut buffer) else { continue };
        let number = {
            let mut count = count.lock().unwrap();
            *count += 1;
            *count
        };
        match fate(number) {
            Fate::Arrives => send(&buffer[..length]),
            Fate::Lost => continue,
            Fate::Late if late.is_none() => {
                late = Some(buffer[..length].to_vec());
                continue;
            }
            Fate::Late => send(&buffer[..length]),
        }
        if let Some(packet) = late.take() {
            send(&packet);
        }
    }
}

/// Passes messages on, each head as `change` makes it, until either side closes.
fn messages(from: &mut TcpStream, to: &mut TcpStream, mut change: impl FnMut(String) -> String) {
    let (mut input, mut buffer) = (Vec::new(), [0; 16 << 10]);
    loop {
        while let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(input[..end + 4].to_vec()).unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length:"));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if input.len() < end + 4 + length {
                break;
            }
            let body = input.drain(..end + 4 + length).skip(end + 4).collect::<Vec<_>>();
            if to.write_all(&[change(head).as_bytes(), &body].concat()).is_err() {
                return;
            }
        }
        match from.read(&mut buffer) {
            Ok(count) if count > 0 => input.extend_from_slice(&buffer[..count]),
            _ => {
                let _ = to.shutdown(std::net::Shutdown::Both);
                return;
            }
        }
    }
}

/// The value behind `name` as `change` makes it.
fn replaced(head: &str, name: &str, change: impl FnOnce(&str) -> String) -> String {
    let Some((before, after)) = head.split_once(name) else { return head.to_owned() };
    let end = after.find([';', '\r', ',']).unwrap();
    format!("{before}{name}{}{}", change(&after[..end]), &after[end..])
}
