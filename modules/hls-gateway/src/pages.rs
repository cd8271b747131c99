//! The pages that people watch with: a player, a wall of players, and what they load. All of it is in the binary;
//! nothing comes from elsewhere, so a page works on a network without the internet.
//!
//! The sources are in `pages/`; `build.rs` brings hls.js. What the pages ask of the server beside media:
//!
//! `GET /-/streams.json` gives the streams that need no key; with `?path=/live/cam&key=K` the one that the key opens:
//!
//! ```json
//! { "now": 1767225600000,
//!   "streams": [ { "path": "/live/cam", "flow": "cam", "state": "live", "needs": null,
//!                  "links": [ { "label": "RTSP", "url": "rtsp://gw:8554/live/cam" } ] } ] }
//! ```
//!
//! `now` is the module's clock, UTC in milliseconds, by which a page tells how old a picture is. `state`: `live`,
//! `gap` (the publisher is away), `waiting`. `needs`: `key`, `basic` or null.
//!
//! `POST /-/report`, for each stream that plays, every ten seconds:
//!
//! ```json
//! { "path": "/live/cam", "latencySeconds": 0.58, "stalls": 0 }
//! ```
//!
//! The answer is 204; 403 to who may not watch, 409 where nobody watches, and 429 to who reports too often. The latency is
//! the median of that time. Whoever reads it must bound and doubt all of it: anybody can send one.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use bytes::Bytes;

/// One file of the pages.
#[derive(Clone, Debug)]
pub struct Page {
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The whole file.
    pub body: Bytes,
    /// `ETag`, quotes included. The same address has other bytes in the next version: `Cache-Control: no-cache`.
    pub etag: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// How both pages begin: a file starts with its title.
const HEAD: &str = include_str!("../pages/head.html");
const PLAYER: &str = include_str!("../pages/player.html");
/// Every path, and what is there.
const FILES: [(&str, &str, &str); 13] = [
    ("/", HTML, PLAYER),
    ("/player.html", HTML, PLAYER),
    ("/wall.html", HTML, include_str!("../pages/wall.html")),
    ("/player/player.js", SCRIPT, include_str!("../pages/player.js")),
    ("/player/wall.js", SCRIPT, include_str!("../pages/wall.js")),
    ("/player/live.js", SCRIPT, include_str!("../pages/live.js")),
    ("/player/keep.js", SCRIPT, include_str!("../pages/keep.js")),
    ("/player/streams.js", SCRIPT, include_str!("../pages/streams.js")),
    ("/player/copy.js", SCRIPT, av_edge::COPY),
    ("/player/look.css", STYLE, av_edge::LOOK),
    ("/player/pages.css", STYLE, include_str!("../pages/pages.css")),
    ("/player/hls.min.js", SCRIPT, include_str!(concat!(env!("OUT_DIR"), "/hls.min.js"))),
    ("/player/hls.js-LICENSE.txt", TEXT, include_str!(concat!(env!("OUT_DIR"), "/hls.js-LICENSE.txt"))),
];

struct File {
    content_type: &'static str,
    body: Bytes,
    etag: String,
}

static BY_PATH: LazyLock<HashMap<&'static str, File>> = LazyLock::new(|| {
    let files = FILES.map(|(path, content_type, body)| {
        let body: Bytes = match content_type {
            HTML => [HEAD, body].concat().into(),
            _ => Bytes::from_static(body.as_bytes()),
        };
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        (path, File { content_type, body, etag: format!("\"{:016x}\"", hasher.finish()) })
    });
    HashMap::from(files)
});

/// The file at exactly that path; `None` where there is none.
pub fn find(path: &str) -> Option<Page> {
    let File { content_type, body, etag } = BY_PATH.get(path)?;
    Some(Page { content_type, body: body.clone(), etag })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_page_loads_is_there() {
        for page in ["/", "/player.html", "/wall.html"] {
            let page = find(page).unwrap();
            let text = std::str::from_utf8(&page.body).unwrap();
            let loaded = ["src=\"", "rel=\"stylesheet\" href=\""]
                .iter()
                .flat_map(|start| text.split(start).skip(1).filter_map(|rest| rest.split('"').next()));
            let missing: Vec<_> = loaded.filter(|path| find(path).is_none()).collect();
            assert!(missing.is_empty(), "{missing:?}");
            // Scripts and styles of the page itself, and nothing that they or anything in them ask for elsewhere.
            assert!(text.contains("content=\"default-src 'none'; script-src 'self';"));
        }
        for script in ["player", "wall", "live", "streams", "keep"] {
            let page = find(&format!("/player/{script}.js")).unwrap();
            let text = std::str::from_utf8(&page.body).unwrap();
            for module in text.split(" from \"./").skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(find(&format!("/player/{module}")).is_some(), "{script}.js imports {module}");
            }
        }
        assert!(find("/player").is_none() && find("/../player.html").is_none());
    }

    #[test]
    fn nothing_of_the_pages_comes_from_elsewhere() {
        // hls.js names addresses of specifications in its texts; the policy keeps it from asking there.
        let head = ("head.html", HTML, HEAD);
        for (path, _, text) in FILES.iter().chain([&head]).filter(|(path, ..)| !path.contains("hls.")) {
            assert!(!text.contains("http://") && !text.contains("https://"), "{path}");
        }
    }

    #[test]
    fn hls_js_comes_with_its_licence_or_says_that_it_is_not_there() {
        let text = |path| String::from_utf8(find(path).unwrap().body.to_vec()).unwrap();
        let (script, licence) = (text("/player/hls.min.js"), text("/player/hls.js-LICENSE.txt"));
        assert_eq!(script.contains("is not in this build"), licence.contains("is not in this build"));
        assert!(script.len() < 100 || (script.contains("1.7.4") && licence.contains("Apache License")));
    }
}
