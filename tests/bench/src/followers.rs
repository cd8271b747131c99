//! Viewers that follow the live edge.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use av_bench::stamp;

use crate::http::{Connection, Failure, Url};

/// How often a playlist without parts is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Nobody follows later than that.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all viewers together have seen.
#[derive(Default)]
pub struct Followers(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    following: usize,
    lost: usize,
    /// Of each piece: the age of its newest and of its oldest picture, in milliseconds, and its length.
    pieces: Vec<[f64; 3]>,
    bytes: u64,
}

/// A part or a segment of a playlist.
struct Piece {
    uri: String,
    seconds: f64,
}

impl Followers {
    /// Starts a viewer.
    pub fn start(self: &Arc<Self>, url: Url) {
        let followers = self.clone();
        tokio::spawn(async move {
            let Err(error) = followers.follow(url).await else { return };
            let mut seen = followers.0.lock().unwrap();
            seen.lost += 1;
            if seen.lost == 1 {
                eprintln!("hls-load: {error}");
            }
        });
    }

    /// Until that many have a piece.
    pub async fn all_follow(&self, viewers: usize) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while self.0.lock().unwrap().following < viewers {
            if Instant::now() > deadline {
                return Err(format!("only {} of {viewers} follow", self.0.lock().unwrap().following).into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// What was seen so far does not count.
    pub fn forget(&self) {
        let mut seen = self.0.lock().unwrap();
        (seen.pieces, seen.bytes) = (Vec::new(), 0);
    }

    /// As members of a JSON object. Late is a piece whose newest picture is older than the piece is long.
    pub fn report(&self) -> String {
        let seen = self.0.lock().unwrap();
        let quantiles =
            |index: usize| stamp::quantiles(seen.pieces.iter().map(|piece| piece[index]).collect());
        let late = seen.pieces.iter().filter(|[newest, _, length]| newest > length).count();
        format!(
            "\"pieces\":{},\"late\":{late},\"newest\":{},\"oldest\":{},\"bytes\":{},\"lost\":{}",
            seen.pieces.len(),
            quantiles(0),
            quantiles(1),
            seen.bytes,
            seen.lost
        )
    }

    async fn follow(&self, mut url: Url) -> Result<(), Failure> {
        let mut connection = Connection::open(&url).await?;
        let deadline = Instant::now() + PATIENCE;
        let mut text = loop {
            match connection.text(&url.path).await {
                Ok(text) => break text,
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        };
        if text.contains("#EXT-X-STREAM-INF") {
            let media = text.lines().find(|line| !line.starts_with('#')).ok_or("no media playlist")?;
            url.path = url.join(media);
            text = connection.text(&url.path).await?;
        }
        let mut known: Option<String> = None;
        let mut follows = false;
        loop {
            let blocking = next_part(&text);
            let pieces = pieces(&text, blocking.is_some());
            // At first only what comes from now on.
            let newest = pieces.last().map(|piece| piece.uri.clone());
            let at = known.as_ref().map_or(Some(pieces.len()), |known| {
                Some(pieces.iter().position(|piece| piece.uri == *known)? + 1)
            });
            for piece in &pieces[at.ok_or("pieces came faster than they were fetched")?..] {
                let body = connection.fetch(&url.join(&piece.uri)).await?;
                let mut seen = self.0.lock().unwrap();
                seen.bytes += body.len() as u64;
                if let Some([newest, oldest]) = ages(body) {
                    seen.pieces.push([newest, oldest, piece.seconds * 1e3]);
                }
                seen.following += usize::from(!std::mem::replace(&mut follows, true));
            }
            known = newest.or(known);
            if let Some((segment, part)) = blocking {
                let path = format!("{}?_HLS_msn={segment}&_HLS_part={part}", url.path);
                text = connection.text(&path).await?;
            } else {
                tokio::time::sleep(LOOK).await;
                text = connection.text(&url.path).await?;
            }
        }
    }
}

/// Segment and part that come next, where there are parts.
fn next_part(text: &str) -> Option<(u64, u64)> {
    if !text.contains("CAN-BLOCK-RELOAD=YES") || !text.contains("#EXT-X-PART-INF") {
        return None;
    }
    let first = text.lines().find_map(|line| line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:"))?;
    let (mut segment, mut part) = (first.parse().ok()?, 0);
    for line in text.lines() {
        if line.starts_with("#EXT-X-PART:") {
            part += 1;
        } else if !line.starts_with('#') {
            (segment, part) = (segment + 1, 0);
        }
    }
    Some((segment, part))
}

fn pieces(text: &str, parts: bool) -> Vec<Piece> {
    let (mut pieces, mut seconds) = (Vec::new(), 0.0);
    for line in text.lines() {
        if let Some(duration) = line.strip_prefix("#EXTINF:") {
            seconds = duration.trim_end_matches(',').parse().unwrap_or(0.0);
        } else if let Some(part) = line.strip_prefix("#EXT-X-PART:").filter(|_| parts) {
            let value =
                |name: &str| Some(part.split_once(name)?.1.split(',').next()?.trim_matches('"').to_owned());
            if let Some((uri, duration)) = value("URI=").zip(value("DURATION=")) {
                pieces.push(Piece { uri, seconds: duration.parse().unwrap_or(0.0) });
            }
        } else if !line.starts_with('#') && !parts {
            pieces.push(Piece { uri: line.to_owned(), seconds });
        }
    }
    pieces
}

/// How old the newest and the oldest picture is, in milliseconds. In a transport stream some stamps are cut, most are not.
fn ages(body: &[u8]) -> Option<[f64; 2]> {
    let mut ages = stamp::ages(body);
    let oldest = ages.next()?;
    Some([ages.next_back().unwrap_or(oldest), oldest])
}
