//! The parameters of `Authorization` and `WWW-Authenticate`.

/// `name=value` and `name="value"`, comma separated; names compare without case.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

/// Most parameters that are read.
const MAX_PARAMETERS: usize = 32;

impl Parameters {
    /// Splits at commas outside quotes. In quotes, a backslash keeps the next character.
    pub(super) fn parse(text: &str) -> Self {
        let mut found = Vec::new();
        let mut rest = text;
        while found.len() < MAX_PARAMETERS
            && let Some((name, after)) = rest.split_once('=')
        {
            let name = name.trim_matches([' ', '\t', ',']).to_ascii_lowercase();
            let after = after.trim_start();
            let value;
            (value, rest) = match after.strip_prefix('"') {
                Some(quoted) => unquote(quoted),
                None => {
                    let (value, rest) = after.split_once(',').unwrap_or((after, ""));
                    (value.trim().to_owned(), rest)
                }
            };
            found.push((name, value));
        }
        Self(found)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// The text up to the closing quote, and what follows it.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, text.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(characters.next().map(|(_, character)| character)),
            _ => value.push(character),
        }
    }
    (value, "")
}
