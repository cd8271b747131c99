//! Manifests with one sin each.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::variables::Variables;

fn manifest(host_config: Value, flows: Value) -> Manifest {
    manifest_of(json!({"HostConfig": host_config}), flows)
}

fn manifest_of(create_options: Value, flows: Value) -> Manifest {
    let text = json!({"modulesContent": {
        "$edgeAgent": {"properties.desired.modules": {
            "front": {
                "type": "docker", "status": "running", "restartPolicy": "always",
                "settings": {
                    "image": "reg/rtmp-splitter:1.0.0-amd64",
                    "createOptions": create_options
                }
            }
        }},
        "front": {"properties.desired": {"flows": flows}},
        "back": {"properties.desired": {"flows": {"x": {"input": {"pull": "rtmp://front:1940/a"}}}}}
    }});
    let variables =
        Variables::parse(Path::new("/repo/local.env"), "MEDIA=/home/me/media\n", BTreeMap::new()).unwrap();
    Manifest::parse(&text.to_string(), &variables, Path::new("/repo")).unwrap()
}

/// What a device needs, and these binds.
fn with_binds(binds: &[&str]) -> Value {
    let binds: Vec<&str> = [&["front:/var/lib/rtmp-splitter"], binds].concat();
    json!({"PortBindings": {"1935/tcp": [{"HostPort": "1935"}]}, "Binds": binds})
}

fn allowed() -> Vec<PathBuf> {
    vec!["/etc/av-services".into()]
}

fn found(host_config: Value, flows: Value) -> Vec<String> {
    check(&manifest(host_config, flows), Some(&allowed()))
}

#[test]
fn what_a_device_runs_is_not_complained_of() {
    let binds = ["${MEDIA}:/media:ro", "/etc/av-services/secrets:/run/secrets:ro"];
    let flows = json!({"cam": {
        "input": {"listen": "rtmp://0.0.0.0:1935/live/cam", "auth": {"key": [{"file": "/run/secrets/key"}, "k"]}},
        "outputs": {
            "viewers": {"serve": "rtmp://0.0.0.0/live/cam"},
            "inside": {"serve": "rtmp://0.0.0.0:1940/a"},
            "cloud": {"push": "rtmp://user:pw@ingest.example.com/app/127.0.0.1"}
        }
    }, "file": {"input": {"read": "file:///media/a.mp4"}, "outputs": {"own": {"store": "file:///var/lib/rtmp-splitter/x"}}}});
    assert_eq!(found(with_binds(&binds), flows), [] as [&str; 0]);
}

#[test]
fn each_sin_is_found_by_its_place() {
    let cam = |input: Value, outputs: Value| json!({"cam": {"input": input, "outputs": outputs}});
    let listens = json!({"listen": "rtmp://0.0.0.0:1935/live/cam"});
    let sins = [
        (
            with_binds(&[]),
            cam(json!({"read": "file:///media/a.mp4"}), json!({})),
            "front: flows.cam.input.read: /media/a.mp4 lies outside every bind",
        ),
        (
            with_binds(&[]),
            cam(
                json!({"listen": "rtmp://0.0.0.0/a", "auth": {"key": {"file": "/run/secrets/key"}}}),
                json!({}),
            ),
            "front: flows.cam.input.auth.key.file: /run/secrets/key lies outside every bind",
        ),
        (
            with_binds(&[]),
            cam(
                json!({"listen": "rtmps://0.0.0.0:1935/a", "tls": {"certificateFile": "/tls/a.pem"}}),
                json!({}),
            ),
            "front: flows.cam.input.tls.certificateFile: /tls/a.pem lies outside",
        ),
        (
            with_binds(&["${MEDIA}:/media:ro"]),
            cam(listens.clone(), json!({"disk": {"store": "file:///media/recordings"}})),
            "front: flows.cam.outputs.disk.store: /media/recordings lies in a bind that is read-only",
        ),
        (
            with_binds(&[]),
            cam(json!({"pull": "rtmp://127.0.0.1/live/cam"}), json!({})),
            "front: flows.cam.input.pull: 127.0.0.1 is the container's own loopback",
        ),
        (
            with_binds(&[]),
            cam(listens.clone(), json!({"next": {"push": "rtsp://u:p@localhost:8554/x"}})),
            "front: flows.cam.outputs.next.push: localhost is the container's own loopback",
        ),
        (
            with_binds(&[]),
            cam(listens.clone(), json!({"next": {"push": "rtmps://[::1]:1936/x"}})),
            "front: flows.cam.outputs.next.push: ::1 is the container's own loopback",
        ),
        (
            with_binds(&[]),
            cam(listens.clone(), json!({"viewers": {"serve": "rtsp://0.0.0.0/x"}})),
            "front: flows.cam.outputs.viewers.serve: port 8554 is not published",
        ),
        (
            with_binds(&[]),
            cam(
                listens.clone(),
                json!({"cloud": {"store": "azblob+http://127.0.0.1:10000/account/container"}}),
            ),
            "front: flows.cam.outputs.cloud.store: 127.0.0.1 is the container's own loopback",
        ),
        (
            json!({"PortBindings": {"1935/udp": [{"HostPort": "1935"}]}, "Binds": ["front:/var/lib/rtmp-splitter"]}),
            cam(listens.clone(), json!({})),
            "front: flows.cam.input.listen: port 1935 is not published",
        ),
        (
            with_binds(&[]),
            cam(json!({"listen": "rtmp://127.0.0.1:1935/x"}), json!({})),
            "front: flows.cam.input.listen: 127.0.0.1 is the container's own loopback: nobody reaches it",
        ),
        (
            json!({"PortBindings": {"1935/tcp": [{"HostPort": "1"}]}}),
            cam(listens, json!({})),
            "front: no volume holds its state",
        ),
        (
            with_binds(&["/home/me:/data"]),
            json!({}),
            "front: /home/me is not below one of allowed_bind_sources",
        ),
    ];
    for (host_config, flows, text) in sins {
        let found = found(host_config, flows.clone());
        assert!(
            found.len() == 1 && found.iter().all(|line| line.starts_with(text)),
            "{flows}\n{found:#?}\n{text}"
        );
    }
}

#[test]
fn a_container_is_held_to_its_user_and_its_read_only_root() {
    let found =
        |create_options: Value, flows: Value| check(&manifest_of(create_options, flows), Some(&allowed()));
    let stores = json!({"cam": {
        "input": {"listen": "rtmp://0.0.0.0:1935/live/cam"},
        "outputs": {"disk": {"store": "file:///data/recordings"}}
    }});
    let mut host_config = with_binds(&[]);
    host_config["ReadonlyRootfs"] = true.into();
    let lines = found(json!({"HostConfig": host_config}), stores);
    assert!(
        matches!(&lines[..], [line] if line.starts_with("front: flows.cam.outputs.disk.store: /data/recordings")
            && line.contains("ReadonlyRootfs")),
        "{lines:#?}"
    );

    let nowhere = json!({"HostConfig": {"ReadonlyRootfs": true}});
    let read_only = json!({"HostConfig": {"Binds": ["front:/var/lib/rtmp-splitter:ro"]}});
    for (create_options, text) in [(nowhere, "its root is read-only"), (read_only, "read-only (:ro)")] {
        let lines = found(create_options, json!({}));
        assert!(matches!(&lines[..], [line] if line.contains(text)), "{lines:#?}");
    }

    for (user, is_sin) in [
        ("10001", false),
        ("10001:10001", false),
        ("", false),
        ("0", true),
        ("root", true),
        ("1000:10001", true),
    ] {
        let lines = found(json!({"User": user, "HostConfig": with_binds(&[])}), json!({}));
        assert_eq!(lines.len(), usize::from(is_sin), "{user}: {lines:#?}");
        assert!(lines.iter().all(|line| line.starts_with("front: User of createOptions")), "{lines:#?}");
    }
}

#[test]
fn without_a_configuration_of_the_device_binds_are_not_judged() {
    let manifest = manifest(with_binds(&["/home/me:/data"]), json!({}));
    assert_eq!(check(&manifest, None), [] as [&str; 0]);
    let sources =
        allowed_bind_sources("# x\nallowed_bind_sources = [\"/MEDIA-DIR\", \"/etc/av-services\"]\n[agent]\n");
    assert_eq!(sources.unwrap(), [PathBuf::from("/MEDIA-DIR"), "/etc/av-services".into()]);
    assert_eq!(allowed_bind_sources("hostname = \"x\""), None);
}

/// The repository's own, on this machine and on a device.
#[test]
fn the_manifest_of_this_repository_keeps_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("edge-config/local.env")).unwrap();
    let variables = Variables::parse(&root.join("edge-config/local.env"), &text, BTreeMap::new()).unwrap();
    let manifest = Manifest::load(&root.join("deployment.template.json"), &variables).unwrap();
    let config = std::fs::read_to_string(root.join("edge-config/config.toml")).unwrap();
    let allowed = allowed_bind_sources(&config).expect("allowed_bind_sources");
    assert_eq!(check(&manifest, Some(&allowed)), [] as [&str; 0]);
}
