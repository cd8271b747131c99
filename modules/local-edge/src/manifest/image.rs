//! Which service an image is.

use std::path::Path;

use serde_json::Value;

/// The service behind an image: the last name of its repository, without tag or digest. For a template's
/// placeholder (`${MODULES.NAME}`, `${MODULES.NAME.amd64}`, `${MODULEDIR<../NAME>}`) the repository in that
/// module's `module.json` decides, looked for below `folder`; where there is none, the placeholder's name.
pub fn service_of(image: &str, folder: &Path) -> Option<String> {
    let (name, module_folder) = if let Some(inner) = placeholder(image, "${MODULES.", "}") {
        let name = inner.split('.').next()?;
        (name, folder.join("modules").join(name))
    } else if let Some(path) = placeholder(image, "${MODULEDIR<", ">") {
        (path.trim_end_matches('/').rsplit('/').next()?, folder.join(path))
    } else {
        return repository_name(image);
    };
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return None;
    }
    Some(from_module_json(&module_folder.join("module.json")).unwrap_or_else(|| name.to_owned()))
}

/// Whether an image is one that is built of this manifest's sources, as far as its text says.
pub fn is_placeholder(image: &str) -> bool {
    image.starts_with("${")
}

fn placeholder<'a>(image: &'a str, open: &str, close: &str) -> Option<&'a str> {
    Some(image.strip_prefix(open)?.split_once(close)?.0)
}

fn from_module_json(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(1 << 20).read_to_string(&mut text).ok()?;
    let document: Value = serde_json::from_str(&text).ok()?;
    repository_name(document.pointer("/image/repository")?.as_str()?)
}

fn repository_name(image: &str) -> Option<String> {
    let last = image.rsplit('/').next()?;
    let name = last.split(['@', ':']).next()?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (!name.is_empty() && !name.starts_with('.') && name.chars().all(fits)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_a_generated_manifest_names_its_service() {
        let none = Path::new("/nowhere");
        let service = |image| service_of(image, none);
        assert_eq!(service("reg.azurecr.io/rtmp-splitter:0.1.0-amd64").as_deref(), Some("rtmp-splitter"));
        assert_eq!(service("reg:5000/team/mp4-source@sha256:00ff").as_deref(), Some("mp4-source"));
        assert_eq!(service("mp4-source").as_deref(), Some("mp4-source"));
        assert_eq!(service("$upstream:443/mp4-source:1").as_deref(), Some("mp4-source"));
        assert_eq!(service(""), None);
        assert_eq!(service("reg/"), None);
    }

    #[test]
    fn a_placeholder_names_its_service() {
        let none = Path::new("/nowhere");
        let service = |image| service_of(image, none);
        assert_eq!(service("${MODULES.rtmp-splitter}").as_deref(), Some("rtmp-splitter"));
        assert_eq!(service("${MODULES.rtmp-splitter.arm64v8}").as_deref(), Some("rtmp-splitter"));
        assert_eq!(service("${MODULEDIR<../mp4-source>}").as_deref(), Some("mp4-source"));
        assert_eq!(service("${MODULEDIR<../..>}"), None);
    }

    #[test]
    fn the_repository_in_module_json_decides() {
        let folder = tempfile::tempdir().unwrap();
        let module = folder.path().join("modules/front");
        std::fs::create_dir_all(&module).unwrap();
        let json = r#"{"image": {"repository": "${REGISTRY}/rtmp-splitter", "tag": {"version": "1"}}}"#;
        std::fs::write(module.join("module.json"), json).unwrap();
        assert_eq!(service_of("${MODULES.front}", folder.path()).as_deref(), Some("rtmp-splitter"));
    }
}
