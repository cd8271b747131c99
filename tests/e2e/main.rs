//! End-to-end tests: the modules' binaries, driven through what they show to the outside, with real clients.
//!
//! `tests/run` builds the binaries and runs these; `cargo test -p av-tests --test e2e` does when they are
//! built. Cases that take more than a minute run when `AV_LONG` is set (`tests/run --long`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use av_tests::tool::long;
use serde_json::{Value, json};

mod access;
mod cameras;
mod codec_change;
mod configuration;
mod content;
mod device_rules;
mod environment;
mod fan_out;
mod hls;
mod hls_answers;
mod hls_changes;
mod hls_clients;
mod hls_clock;
mod hls_crowd;
mod hls_exact;
mod hls_frames;
mod hls_lint;
mod hls_secure;
mod hls_window;
mod hostile;
mod hub_certificates;
mod hub_faults;
mod hub_sdks;
mod input_options;
mod lifecycle;
mod local_edge;
mod long_time;
mod mp4_source;
mod observed;
mod on_demand;
mod open_files;
mod pages;
mod peers;
mod publish_play;
mod publisher_loss;
mod recorder;
mod recorder_away;
mod recorder_blobs;
mod recorder_changes;
mod recorder_events;
mod recorder_evidence;
mod recorder_faults;
mod recorder_files;
mod recorder_identity;
mod recorder_network;
mod recorder_power;
mod recorder_remount;
mod regressions;
mod relay;
mod renderer;
mod renderer_devices;
mod renderer_kms;
mod renderer_sound;
mod renderer_sound_changes;
mod renderer_streams;
mod rtsp;
mod rtsp_codecs;
mod rtsp_hostile;
mod rtsp_multicast;
mod rtsp_players;
mod rtsp_ports;
mod rtsp_publish;
mod rtsp_push;
mod rtsp_secure;
mod rtsp_sessions;
mod rtsp_time;
mod rtsp_tunnel;
mod serve_options;
mod shown;
mod thousand_flows;
mod thousand_instances;
mod timeline;
mod twin_capacity;
mod twin_edits;
mod vlc;
mod wire;

/// A desired document of these flows.
fn twin(flows: Value) -> Value {
    json!({ "schemaVersion": "1.0", "logLevel": "debug", "flows": flows })
}

/// A desired document of one flow `cam`, which listens and serves at `url`, with these options.
fn cam(url: &str, input: Value, output: Value) -> Value {
    let with = |mut endpoint: Value, options: Value| {
        let Value::Object(options) = options else { panic!("options are an object") };
        endpoint.as_object_mut().unwrap().extend(options);
        endpoint
    };
    twin(json!({ "cam": {
        "input": with(json!({ "listen": url }), input),
        "outputs": { "viewers": with(json!({ "serve": url }), output) },
    } }))
}

/// The address `path` on 127.0.0.1.
fn rtmp(port: u16, path: &str) -> String {
    format!("rtmp://127.0.0.1:{port}/{path}")
}
