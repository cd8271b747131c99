//! What is checked, and whom it breaks when it does not hold.

/// A rule of RFC 8216bis, or of a player that enforces more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// Its name in the output.
    pub(super) name: &'static str,
    /// The players that are known to fail, or `all`.
    pub(super) breaks: &'static str,
    /// What they do.
    pub(super) why: &'static str,
}

/// The highest rate of pictures that is believed: cameras and screens have 240 at most.
pub(super) const MOST_PICTURES: f64 = 300.0;

/// Something that does not follow a rule.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) rule: &'static Rule,
    /// What was found where.
    pub(super) detail: String,
}

impl Fault {
    pub(super) fn new(rule: &'static Rule, detail: impl Into<String>) -> Self {
        Self { rule, detail: detail.into() }
    }
}

macro_rules! rules {
    ($($id:ident $name:literal $breaks:literal $why:literal;)*) => {
        $(pub(super) static $id: Rule = Rule { name: $name, breaks: $breaks, why: $why };)*
        #[cfg(test)]
        pub(super) static ALL: &[&Rule] = &[$(&$id),*];
    };
}

rules! {
    SYNTAX "syntax" "all" "a line that can't be read";
    EXTM3U "extm3u-first" "all" "a playlist must begin with #EXTM3U";
    BOM "byte-order-mark" "strict readers" "a playlist must not begin with one";
    NOT_UTF8 "not-utf-8" "all" "a playlist must be UTF-8";
    QUOTES "attribute-quotes" "AVPlayer, Media3" "strings must be quoted, and other values must not be";
    TWICE "tag-twice" "hls.js, AVPlayer" "a tag that a playlist may have once is there again";
    NO_TARGET "target-duration-missing" "all" "every media playlist must have EXT-X-TARGETDURATION";
    VERSION "version-too-low" "strict readers" "EXT-X-VERSION is lower than its tags need";
    NO_EXTINF "uri-without-extinf" "all" "a segment has no duration";
    EXTINF_OVER_TARGET "extinf-over-target" "AVPlayer, Roku" "a segment is longer than the target duration";
    EXTINF_ZERO "extinf-zero" "hls.js <= 1.7.2" "it loads a last segment of zero length in a loop";
    NO_FINISHED "no-finished-segment" "hls.js" "it treats parts without a finished segment as an empty playlist";
    NO_PART_INF "part-inf-missing" "AVPlayer, Shaka, hls.js" "parts need EXT-X-PART-INF";
    PART_OVER_TARGET "part-over-target" "AVPlayer (-12642)" "one part above PART-TARGET makes it drop the variant";
    PART_TOO_SHORT "part-too-short" "AVPlayer" "every part except a segment's last must have at least 85 % of PART-TARGET";
    NO_SERVER_CONTROL "server-control-missing" "AVPlayer, hls.js" "low latency needs CAN-BLOCK-RELOAD=YES";
    NO_PART_HOLD_BACK "part-hold-back-missing" "Shaka, AVPlayer" "Shaka throws without PART-HOLD-BACK";
    PART_HOLD_BACK "part-hold-back-short" "AVPlayer" "PART-HOLD-BACK should be three PART-TARGETs, and must be at least two";
    NO_HOLD_BACK "hold-back-missing" "AVPlayer (advice)" "without HOLD-BACK it starts 3 targets back, and loops in a short window";
    HOLD_BACK "hold-back-short" "AVPlayer" "HOLD-BACK must be at least three target durations";
    CAN_SKIP "can-skip-until-short" "AVPlayer" "CAN-SKIP-UNTIL must be at least six target durations";
    PART_BYTERANGE "part-byterange" "Media3, Shaka" "parts in byte ranges crash some versions";
    NO_HINT "preload-hint-missing" "AVPlayer, Media3, Shaka (advice)" "without a hint each part costs a round trip";
    NOT_INDEPENDENT "no-independent-part" "hls.js" "it starts at any part if none is independent";
    PART_ORDER "part-behind-extinf" "hls.js" "parts after their own EXTINF make it load segments again";
    PART_SUM "part-sum" "AVPlayer, hls.js" "the parts of a segment must add up to the segment, to within a second";
    WINDOW "window-short" "AVPlayer" "it falls off a window shorter than three target durations";
    ONLY_GAPS "only-gaps" "all" "nothing that is listed can be played: players stop";
    GAPS_IN_FRONT "gaps-in-front" "AVPlayer (advice)" "it begins to play where there is only a gap";
    NO_MAP "map-missing" "all" "fragments need EXT-X-MAP";
    NO_DISCONTINUITY_SEQUENCE "discontinuity-sequence-missing" "AVPlayer, hls.js"
        "EXT-X-DISCONTINUITY without EXT-X-DISCONTINUITY-SEQUENCE";
    NO_DATE_AFTER "date-missing-at-discontinuity" "Shaka" "with dates, each discontinuity needs one";
    NO_CODECS "codecs-missing" "AVPlayer, hls.js" "without CODECS, no HEVC track, and Opus is taken for AAC";
    NO_BANDWIDTH "bandwidth-missing" "all" "EXT-X-STREAM-INF needs BANDWIDTH";
    VARIANTS_CHANGED "multivariant-changed" "all (advice)" "players read it once, so those already playing never see the change";
    LOW_BANDWIDTH "bandwidth-low" "AVPlayer, hls.js" "a segment has more than twice the BANDWIDTH by which they choose";
    WRONG_CODECS "codecs-not-media" "AVPlayer, hls.js" "they choose a decoder by CODECS, but the init segment has another codec";
    NO_TRACK "codecs-without-track" "Shaka" "Chrome refuses an init segment that lacks a codec of CODECS";
    NO_SAMPLES "track-without-samples" "browsers" "they wait for every track of the init segment, for ever";
    WRONG_FRAME_RATE "frame-rate-not-media" "hls.js, AVPlayer" "they choose a variant by FRAME-RATE, but the media has another rate";
    RATE_VARIES "frame-rate-varies" "AVPlayer (advice)" "FRAME-RATE is far from the rate of media whose rate varies";
    WRONG_RESOLUTION "resolution-not-media" "hls.js, Roku" "they choose a variant by RESOLUTION, but the init segment has another size";
    NO_REPORT "rendition-report-missing" "AVPlayer (advice)" "without EXT-X-RENDITION-REPORT, switching playlists costs a round trip";
    BARE "bare-media-playlist" "AVPlayer (HEVC), hls.js (Opus) (advice)" "only a multivariant playlist names the codecs";
    ABSURD_FRAME_RATE "frame-rate-absurd" "hls.js, AVPlayer" "they drop a variant whose FRAME-RATE no device shows";
    OPUS "opus-spelling" "Safari" "its media source accepts Opus, not opus";
    WENT_BACK "sequence-went-back" "Media3, hls.js" "PlaylistResetException; hls.js waits for ever";
    REMOVED_OF_WHOLE "removed-of-whole" "hls.js, AVPlayer" "nothing may be removed with EXT-X-PLAYLIST-TYPE EVENT or VOD";
    FROM_ZERO "sequence-from-zero" "hls.js <= 1.7.1" "it does not block while the last number is 0";
    URI_CHANGED "segment-uri-changed" "hls.js" "another path for a media sequence number is a parse error";
    NUMBER_CHANGED "discontinuity-number-changed" "hls.js" "another discontinuity number is a parse error";
    DURATION_CHANGED "extinf-changed" "AVPlayer, hls.js" "a segment's duration changed";
    PART_CHANGED "part-changed" "AVPlayer" "a part changed its URI or duration";
    TARGET_CHANGED "target-duration-changed" "AVPlayer" "it stops for ever";
    PART_TARGET_CHANGED "part-target-changed" "AVPlayer" "it stops for ever";
    PART_HOLD_BACK_CHANGED "part-hold-back-changed" "AVPlayer" "it stops for ever";
    HOLD_BACK_CHANGED "hold-back-changed" "AVPlayer" "it stops for ever";
    MAP_CHANGED "map-without-discontinuity" "hls.js" "another init segment needs EXT-X-DISCONTINUITY";
    HINT_WRONG "preload-hint-wrong" "AVPlayer, Media3, Shaka" "the part that came is not the one that was hinted";
    DATE_JUMP "date-jump" "AVPlayer, hls.js, Shaka" "EXT-X-PROGRAM-DATE-TIME does not match the segments' durations";
    STALE "stale" "AVPlayer (-12888)" "nothing new for 1.5 target durations; Media3 gives up after 3.5";
    AFTER_END "changed-after-end" "all" "nothing may change after EXT-X-ENDLIST";
    SKIP_WRONG "skip-wrong" "AVPlayer, hls.js, Shaka" "a delta update does not match the playlist it is a delta of";
    BLOCK_EARLY "blocking-early" "AVPlayer, hls.js" "a blocking request was answered without what it asked for";
    BLOCK_LATE "blocking-late" "AVPlayer, hls.js" "a blocking request was held for more than three target durations";
    STATUS "error-status" "hls.js, AVPlayer, Media3" "a playlist and everything it lists must answer 200";
    REDIRECT "redirect" "browsers" "a redirect on a media path breaks CORS";
    CONTENT_TYPE "content-type" "AVPlayer" "a playlist must be application/vnd.apple.mpegurl or audio/mpegurl";
    NO_CACHE_CONTROL "cache-control-missing" "CDNs" "Azure Front Door caches answers without Cache-Control for days";
    NO_CORS "cors-missing" "browsers" "no Access-Control-Allow-Origin";
    NO_LENGTH "content-length-missing" "CDNs" "Azure Front Door does not accept chunked answers above 8 MB";
    REMOVED "removed-too-soon" "all, CDNs" "a segment must stay available for its own and the playlist's duration after it leaves";
    PART_REMOVED "part-removed-too-soon" "AVPlayer, hls.js" "a part must stay available for three target durations after it leaves";
    TWO_CONTENTS "two-contents" "all, CDNs" "one URL had two contents";
    NOT_HTTPS "not-https" "AVPlayer (advice)" "low latency needs HTTP/2, so https";
    NOT_HTTP2 "not-http2" "AVPlayer (advice)" "low latency needs HTTP/2, but HTTP/1.1 was used";
    BOXES "boxes" "all" "an init segment or part that can't be read";
    AUDIO_FIRST "audio-first" "Roku (error 970)" "video must come first in moov and moof";
    EDIT_LIST "edit-list" "Safari, old Android" "Chrome applies an edit list, they do not";
    HEV1 "hev1" "AVPlayer, Safari" "Apple needs hvc1 for H.265";
    SHORT_TFDT "tfdt-32-bits" "hls.js" "a 32-bit decode time wraps";
    TFDT_GAP "tfdt-gap" "hls.js, AVPlayer" "decode times have a gap or overlap without EXT-X-DISCONTINUITY";
    NEGATIVE_OFFSET "negative-composition-offset" "old Safari, Roku" "pictures would be shown before they are decoded";
    EXTINF_WRONG "extinf-not-media" "hls.js, AVPlayer" "EXTINF or DURATION does not match the media's duration";
    DEPENDENT "independent-is-not" "hls.js"
        "INDEPENDENT=YES or EXT-X-INDEPENDENT-SEGMENTS, but the first picture is not a sync frame";
    AVCC "avcc-empty" "hls.js" "an avcC without profile and level";
    PARTS_DIFFER "parts-are-not-segment" "all" "a segment differs from the parts it was served in";
    SETS_IN_SAMPLES "parameter-sets-in-samples" "Safari" "with hvc1 and avc1, parameter sets may be in the init segment only";
    TS_TABLES "ts-tables" "hls.js, AVPlayer" "every segment must begin with PAT and PMT";
}

/// Advice counts with `--apple` only.
pub(super) fn is_advice(rule: &Rule) -> bool {
    rule.breaks.ends_with("(advice)")
}
