//! The tables of options in docs/twin.md, made of the tables that [`parse`](super::parse) goes by.

use std::fmt::Write;

use super::access::MAX_NETWORKS;
use super::options::{CONTENT, OptionSpec, Shape, When};
use super::role::Role;
use super::supports::Supports;

/// One option of some endpoints of some modules.
struct Row {
    option: &'static OptionSpec,
    roles: Vec<Role>,
    /// Those that have it, where others of the same roles do not.
    schemes: Vec<&'static str>,
    modules: Vec<&'static str>,
}

/// A Markdown table of every option that endpoints with one of `roles` have in one of `modules`.
pub fn reference(modules: &[Supports], roles: &[Role]) -> String {
    let here = |role: &Role| modules.iter().any(|module| !module.schemes(*role).is_empty());
    let all = roles.iter().copied().filter(here).collect::<Vec<_>>();
    let mut table = String::from(
        "| option | with | type and range | default | meaning | modules |\n|---|---|---|---|---|---|\n",
    );
    for row in rows(modules, &all) {
        let (shape, default) = described(row.option, all.first().is_some_and(|role| role.is_input()));
        let (name, meaning) = (row.option.name, row.option.meaning);
        let (with, modules) = (with(&row, &all), having(&row, modules));
        let _ = writeln!(table, "| `{name}` | {with} | {shape} | {default} | {meaning} | {modules} |");
    }
    table
}

fn rows(modules: &[Supports], roles: &[Role]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for role in roles {
        for (module, spec) in
            modules.iter().flat_map(|module| module.endpoints().map(move |spec| (module, spec)))
        {
            if spec.role != *role {
                continue;
            }
            for option in spec.all_options() {
                let fitting = spec.schemes.iter().filter(|scheme| option.fits(**scheme, true));
                let fitting = fitting.map(|scheme| scheme.name).collect::<Vec<_>>();
                let schemes = if fitting.len() < spec.schemes.len() { fitting } else { Vec::new() };
                let same = |row: &&mut Row| is_same(row.option, option) && row.schemes == schemes;
                let row = match rows.iter_mut().find(same) {
                    Some(row) => row,
                    None => {
                        rows.push(Row { option, roles: Vec::new(), schemes, modules: Vec::new() });
                        let Some(row) = rows.last_mut() else { continue };
                        row
                    }
                };
                if !row.roles.contains(role) {
                    row.roles.push(*role);
                }
                if !row.modules.contains(&module.module) {
                    row.modules.push(module.module);
                }
            }
        }
    }
    rows
}

/// Objects and logins of one name are one row: their properties are in a section of the page.
fn is_same(one: &OptionSpec, other: &OptionSpec) -> bool {
    let has_section = |option: &OptionSpec| {
        matches!(option.shape, Shape::Object { .. } | Shape::Credentials { .. } | Shape::Keys { .. })
    };
    one.name == other.name && (one.shape == other.shape || (has_section(one) && has_section(other)))
}

/// The modules that have it, by name unless it is every one that has such endpoints.
fn having(row: &Row, modules: &[Supports]) -> String {
    let may = |module: &&Supports| row.roles.iter().any(|role| !module.schemes(*role).is_empty());
    let is_all = row.modules.len() > 1 && row.modules.len() == modules.iter().filter(may).count();
    if is_all { "all".into() } else { row.modules.join(", ") }
}

fn with(row: &Row, all: &[Role]) -> String {
    let names = row.roles.iter().map(|role| format!("`{}`", role.key())).collect::<Vec<_>>().join(", ");
    let schemes = row.schemes.iter().map(|scheme| format!("`{scheme}`")).collect::<Vec<_>>().join(", ");
    match row.option.when {
        When::Pattern => format!("{names} with a [pattern](#patterns)"),
        _ if !schemes.is_empty() => format!("{names} with {schemes}"),
        _ if row.roles.len() == all.len() => "all".into(),
        _ => names,
    }
}

/// Type and range, and default.
fn described(option: &OptionSpec, is_input: bool) -> (String, String) {
    let none = || "none".to_owned();
    match option.shape {
        Shape::Flag { default } => ("true or false".into(), default.to_string()),
        Shape::Whole { min, max, default } => (format!("{min} to {max}"), default.to_string()),
        Shape::Seconds { max } => (format!("0 to {max}, also fractions"), "0".into()),
        Shape::Word { words } => {
            let choice = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>();
            let default = match choice.first() {
                Some(first) if is_input || option.name != CONTENT.name => first.clone(),
                _ => "the input's".into(),
            };
            (choice.join(", "), default)
        }
        Shape::Words { words } => {
            let choice = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>();
            (format!("list of {}", choice.join(", ")), "all".into())
        }
        Shape::Text => ("text, up to 1024 bytes".into(), none()),
        Shape::PortPair { default } => {
            ("two ports, the first even".into(), format!("`{default}-{}`", default.saturating_add(1)))
        }
        Shape::Group => ("IPv4 multicast address".into(), none()),
        Shape::Path => ("absolute path".into(), none()),
        Shape::HostName => ("host name or IP address".into(), none()),
        Shape::Sha256 => ("64 hexadecimal digits".into(), none()),
        Shape::Networks => (format!("list of 1 to {MAX_NETWORKS} networks"), "everybody".into()),
        Shape::Auth => ("see [auth](#auth-and-credentials)".into(), "nobody is asked".into()),
        Shape::Credentials { .. } | Shape::Keys { .. } => {
            ("see [credentials](#auth-and-credentials)".into(), none())
        }
        Shape::Object { .. } => (format!("see [{0}](#{0})", option.name), "see there".into()),
        Shape::Texts { most, default } => (format!("text, or list of 1 to {most}"), format!("`{default}`")),
        Shape::Objects { properties, most } => {
            let names = properties.iter().map(|property| format!("`{}`", property.name)).collect::<Vec<_>>();
            (format!("list of up to {most}, each with {}", names.join(" and ")), none())
        }
        Shape::AnyObject => ("object".into(), none()),
        Shape::AnyList => ("list".into(), none()),
    }
}
