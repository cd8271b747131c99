//! Ports to listen on.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below Linux's range for outgoing connections (32768 and up), so that no client socket of another test
/// takes the port between its being found and the module's binding it, as happens with port 0.
const FIRST: u16 = 12_000;
const LAST: u16 = 32_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A TCP port on 127.0.0.1 that nothing listens on; never the same twice in one process.
pub fn free() -> u16 {
    let span = LAST - FIRST;
    // Processes that run at the same time start at different places.
    let start = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(span)).unwrap();
    for _ in 0..span {
        let port = FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % span;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {LAST}");
}
