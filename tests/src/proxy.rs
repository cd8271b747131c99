//! A proxy in front of an HTTP server that puts faults of networks into chosen requests.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::port;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends in the middle of the body.
    CutRequest,
    /// The answer is 503, and the server never hears of it.
    Unavailable,
    /// Nothing is answered, and the server never hears of it.
    Silence,
    /// A quarter of the body a second.
    Slow,
    /// One byte of the body changes.
    WrongByte,
    /// The server carries the request out; its answer never arrives.
    LostAnswer,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// `PUT`, `GET`, `HEAD`.
    pub method: String,
    /// Path and query.
    pub target: String,
    head: Vec<u8>,
    body: Vec<u8>,
}

/// Chooses a fault for a request, or none.
type Chooser = Box<dyn FnMut(&Request) -> Option<Fault> + Send>;

/// A proxy that listens; its threads end with the test.
pub struct Proxy {
    /// On 127.0.0.1.
    pub port: u16,
    done: Arc<Mutex<Vec<Fault>>>,
}

impl Proxy {
    /// In front of `server`, a port on 127.0.0.1.
    pub fn start(server: u16, choose: impl FnMut(&Request) -> Option<Fault> + Send + 'static) -> Self {
        let port = port::free();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let choose: Arc<Mutex<Chooser>> = Arc::new(Mutex::new(Box::new(choose)));
        let done: Arc<Mutex<Vec<Fault>>> = Arc::default();
        let faults = done.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), choose, faults) = (client, choose.clone(), faults.clone()) else { return };
                std::thread::spawn(move || serve(client, server, &choose, &faults));
            }
        });
        Self { port, done }
    }

    /// The faults so far, in order.
    pub fn faults(&self) -> Vec<Fault> {
        self.done.lock().unwrap().clone()
    }
}

/// A thin line to a server: of what goes there nothing waits on the way, answers come at once.
pub struct ThinLine {
    /// On 127.0.0.1.
    pub port: u16,
    rate: Arc<AtomicU64>,
    broke: Arc<AtomicU64>,
}

impl ThinLine {
    /// To `server`, a port on 127.0.0.1: so many bytes a second, all connections together. Each ends after `most` bytes.
    pub fn start(server: u16, bytes_per_second: u64, most: u64) -> Self {
        // What the kernel takes for the line before the line has it: with little of that, what is acknowledged was carried.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let port = port::free();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
        socket.listen(16).unwrap();
        let listener = TcpListener::from(socket);
        let rate = Arc::new(AtomicU64::new(bytes_per_second));
        let (line, broke): (Arc<Mutex<()>>, Arc<AtomicU64>) = Default::default();
        let (of_line, breaks) = (rate.clone(), broke.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let (line, rate, breaks) = (line.clone(), of_line.clone(), breaks.clone());
                std::thread::spawn(move || carry(client, server, &line, &rate, most, &breaks));
            }
        });
        Self { port, rate, broke }
    }

    /// From now on.
    pub fn set_rate(&self, bytes_per_second: u64) {
        self.rate.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Connections that ended because they had carried what they may.
    pub fn broke(&self) -> u64 {
        self.broke.load(Ordering::Relaxed)
    }
}

fn carry(
    mut client: TcpStream,
    server: u16,
    line: &Mutex<()>,
    rate: &AtomicU64,
    most: u64,
    broke: &AtomicU64,
) -> Option<()> {
    let mut upstream = TcpStream::connect(("127.0.0.1", server)).ok()?;
    let (mut answers, mut back) = (upstream.try_clone().ok()?, client.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut answers, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let mut piece = [0; 1024];
    let mut carried = 0;
    loop {
        let read = client.read(&mut piece).ok().filter(|read| *read > 0);
        let Some(read) = read else { break };
        {
            let _alone = line.lock().unwrap();
            let takes = 1_000_000_000 * read as u64 / rate.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_nanos(takes));
        }
        carried += read as u64;
        if carried > most {
            broke.fetch_add(1, Ordering::Relaxed);
            let _ = client.shutdown(Shutdown::Both);
            break;
        }
        upstream.write_all(&piece[..read]).ok()?;
    }
    let _ = upstream.shutdown(Shutdown::Both);
    Some(())
}

/// Serves one request per connection: the answer says `Connection: close`.
fn serve(
    mut client: TcpStream,
    server: u16,
    choose: &Mutex<Chooser>,
    faults: &Mutex<Vec<Fault>>,
) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut request = Request::read(&mut reader).ok()?;
    let fault = choose.lock().unwrap()(&request);
    faults.lock().unwrap().extend(fault);
    match fault {
        Some(Fault::Unavailable) => {
            let answer = "HTTP/1.1 503 Server Busy\r\nx-ms-error-code: ServerBusy\r\nx-ms-request-id: 1\r\n\
                          Retry-After: 100000\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return client.write_all(answer.as_bytes()).ok();
        }
        Some(Fault::Silence) => {
            // Until the client has had enough.
            let _ = reader.read(&mut [0]);
            return Some(());
        }
        Some(Fault::WrongByte) => *request.body.first_mut()? ^= 1,
        _ => {}
    }
    let mut upstream = TcpStream::connect(("127.0.0.1", server)).ok()?;
    upstream.write_all(&request.head).ok()?;
    match fault {
        Some(Fault::CutRequest) => {
            upstream.write_all(&request.body[..request.body.len() / 2]).ok()?;
            return Some(());
        }
        Some(Fault::Slow) => {
            for piece in request.body.chunks(request.body.len().div_ceil(8).max(1)) {
                upstream.write_all(piece).ok()?;
                std::thread::sleep(Duration::from_millis(125));
            }
        }
        _ => upstream.write_all(&request.body).ok()?,
    }
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).ok()?;
    if fault != Some(Fault::LostAnswer) {
        client.write_all(&answer).ok()?;
    }
    Some(())
}

impl Request {
    /// The server is told to close, so that its answer ends where the connection does.
    fn read(reader: &mut impl BufRead) -> io::Result<Self> {
        let mut head = Vec::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (name, value) = line.split_once(':').unwrap_or((line.trim(), ""));
            match name.to_ascii_lowercase().as_str() {
                "" => break,
                "content-length" => length = value.trim().parse().unwrap(),
                "connection" => continue,
                _ => {}
            }
            head.extend_from_slice(line.as_bytes());
        }
        let first = String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap()).into_owned();
        head.extend_from_slice(b"Connection: close\r\n\r\n");
        let mut words = first.split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok(Self { method, target, head, body })
    }
}
