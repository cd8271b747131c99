//! nginx with its rtmp module, on loopback.

use std::net::TcpStream;

use tempfile::TempDir;

use crate::program::Program;
use crate::tool::Tool;
use crate::{port, wait};

/// A running nginx with one RTMP application, `live`.
pub struct Nginx {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    _program: Program,
    _dir: TempDir,
}

impl Nginx {
    /// Starts it; `application` is more text for the application's block.
    pub fn start(application: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("nginx-").tempdir().unwrap();
        let port = port::free();
        let home = dir.path().display();
        let conf = format!(
            "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
daemon off; master_process off; worker_processes 1;
pid {home}/pid; error_log stderr warn;
events {{ worker_connections 256; }}
rtmp {{ server {{ listen 127.0.0.1:{port}; chunk_size 4096;
    application live {{ live on; wait_key on; {application} }} }} }}
"
        );
        std::fs::write(dir.path().join("nginx.conf"), conf).unwrap();
        let mut command = Tool::Nginx.command();
        command.arg("-p").arg(dir.path()).arg("-c").arg(dir.path().join("nginx.conf")).args(["-e", "stderr"]);
        let program = Program::start(&mut command);
        wait::until_true("nginx listens", wait::LONG, || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { port, _program: program, _dir: dir }
    }
}
