//! nginx on loopback: with its rtmp module, or as a cache.

use std::net::TcpStream;

use tempfile::TempDir;

use crate::program::Program;
use crate::tool::Tool;
use crate::{port, wait};

/// A running nginx: one RTMP application, `live`, or a cache.
pub struct Nginx {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    _program: Program,
    _dir: TempDir,
}

impl Nginx {
    /// Starts it; `application` is more text for the application's block.
    pub fn start(application: &str) -> Self {
        Self::with(|port, _| {
            format!(
                "rtmp {{ server {{ listen 127.0.0.1:{port}; chunk_size 4096;
    application live {{ live on; wait_key on; {application} }} }} }}"
            )
        })
    }

    /// Starts a cache in front of an HTTP server at `origin` of 127.0.0.1.
    pub fn cache(origin: u16) -> Self {
        Self::with(|port, home| {
            format!(
                "http {{ access_log off; proxy_temp_path {home}/temp; client_body_temp_path {home}/body;
    fastcgi_temp_path {home}/fcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
    proxy_cache_path {home}/cache keys_zone=hls:1m;
    server {{ listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{origin}; proxy_cache hls; proxy_cache_key $request_uri;
            proxy_cache_lock on; proxy_cache_lock_timeout 10s; proxy_http_version 1.1;
            proxy_set_header Connection \"\"; add_header X-Cache $upstream_cache_status always; }} }} }}"
            )
        })
    }

    /// Starts it with these blocks, made of its port and folder.
    fn with(blocks: impl FnOnce(u16, &str) -> String) -> Self {
        let dir = tempfile::Builder::new().prefix("nginx-").tempdir().unwrap();
        let port = port::free();
        let home = dir.path().display().to_string();
        let blocks = blocks(port, &home);
        let conf = format!(
            "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
daemon off; master_process off; worker_processes 1;
pid {home}/pid; error_log stderr warn;
events {{ worker_connections 256; }}
{blocks}
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
