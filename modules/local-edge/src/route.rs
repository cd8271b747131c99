//! Routes of the `$edgeHub` twin: `FROM <source> [WHERE <condition>] INTO <sink>`.

mod condition;

pub use condition::{Condition, ConditionError, Message};

/// Where messages of a module's output go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The segments of the source; a final `*` matches whatever follows.
    source: Vec<String>,
    condition: Option<Condition>,
    /// Where to.
    pub sink: Sink,
}

/// The end of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// `$upstream`: IoT Hub; here the list of events.
    Upstream,
    /// `BrokeredEndpoint("/modules/{module}/inputs/{input}")`.
    Input {
        /// The module that receives.
        module: String,
        /// The name of its input.
        input: String,
    },
}

/// Why a route is refused. edgeHub refuses its whole configuration for one such route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The text does not begin with FROM.
    #[error("expected `FROM <source> INTO <sink>`, found {0:?}")]
    Form(String),
    /// The source is not a path.
    #[error("source {0:?}: expected a path such as /messages/modules/NAME/outputs/*")]
    Source(String),
    /// The condition is wrong, or more than what is evaluated here.
    #[error(
        "condition {text:?}: {source}; local-edge evaluates $body.x, properties, = != < <= > >=, AND, OR, NOT, \
         is_defined() and as_number()"
    )]
    Condition {
        /// All of it.
        text: String,
        /// What is wrong with it.
        source: ConditionError,
    },
    /// The sink is neither `$upstream` nor a module's input.
    #[error("sink {0:?}: expected $upstream or BrokeredEndpoint(\"/modules/NAME/inputs/INPUT\")")]
    Sink(String),
}

impl Route {
    /// Parses a route's text. Keywords are read without regard to case.
    pub fn parse(text: &str) -> Result<Self, RouteError> {
        let form = || RouteError::Form(text.chars().take(120).collect());
        let words = words(text);
        let position = |keyword: &str| words.iter().position(|word| word.text.eq_ignore_ascii_case(keyword));
        let into = words.iter().rposition(|word| word.text.eq_ignore_ascii_case("INTO")).ok_or_else(form)?;
        let filter = position("WHERE").filter(|at| *at < into);
        if position("FROM") != Some(0) {
            return Err(form());
        }
        let [source] = words.get(1..filter.unwrap_or(into)).ok_or_else(form)? else { return Err(form()) };
        let condition = match (filter.and_then(|at| words.get(at + 1)), words.get(into)) {
            (Some(from), Some(to)) if from.at < to.at => {
                let text = text.get(from.at..to.at).unwrap_or_default().trim();
                let condition = Condition::parse(text);
                Some(condition.map_err(|source| RouteError::Condition { text: text.to_owned(), source })?)
            }
            _ if filter.is_some() => return Err(form()),
            _ => None,
        };
        let after = words.get(into + 1).ok_or_else(form)?;
        let sink = parse_sink(text.get(after.at..).unwrap_or_default().trim())?;
        Ok(Self { source: parse_source(source.text)?, condition, sink })
    }

    /// Whether the condition, if there is one, lets the message pass.
    pub fn lets_pass(&self, message: Message<'_>) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.passes(message))
    }

    /// Whether a message of this module, from this output (`None`: sent without one), takes the route.
    pub fn carries(&self, module: &str, output: Option<&str>) -> bool {
        let mut message = vec!["messages", "modules", module];
        if let Some(output) = output {
            message.extend(["outputs", output]);
        }
        match self.source.split_last() {
            Some((last, before)) if last == "*" => {
                message.len() >= before.len() && same(before, message.iter().take(before.len()))
            }
            _ => message.len() == self.source.len() && same(&self.source, message.iter()),
        }
    }
}

fn same<'a>(expected: &[String], found: impl Iterator<Item = &'a &'a str>) -> bool {
    expected.iter().zip(found).all(|(expected, found)| expected.eq_ignore_ascii_case(found))
}

/// A word of a route and where it starts in the text.
struct Word<'a> {
    at: usize,
    text: &'a str,
}

/// Splits at white space outside quotes.
fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            _ => {}
        }
        let blank = quote.is_none() && c.is_whitespace();
        match (blank, start) {
            (false, None) => start = Some(at),
            (true, Some(from)) => {
                words.push(Word { at: from, text: text.get(from..at).unwrap_or_default() });
                start = None;
            }
            _ => {}
        }
    }
    if let Some(from) = start {
        words.push(Word { at: from, text: text.get(from..).unwrap_or_default() });
    }
    words
}

fn parse_source(text: &str) -> Result<Vec<String>, RouteError> {
    let wrong = || RouteError::Source(text.to_owned());
    let segments: Vec<String> =
        text.strip_prefix('/').ok_or_else(wrong)?.split('/').map(Into::into).collect();
    let star_early = segments.iter().rev().skip(1).any(|segment| segment == "*");
    if star_early || segments.iter().any(String::is_empty) { Err(wrong()) } else { Ok(segments) }
}

fn parse_sink(text: &str) -> Result<Sink, RouteError> {
    if text.eq_ignore_ascii_case("$upstream") {
        return Ok(Sink::Upstream);
    }
    let wrong = || RouteError::Sink(text.to_owned());
    let (name, inner) = text.strip_suffix(')').and_then(|t| t.split_once('(')).ok_or_else(wrong)?;
    if !name.trim().eq_ignore_ascii_case("BrokeredEndpoint") {
        return Err(wrong());
    }
    let inner = inner.trim();
    let path = ['"', '\'']
        .iter()
        .find_map(|quote| inner.strip_prefix(*quote)?.strip_suffix(*quote))
        .ok_or_else(wrong)?;
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["", modules, module, inputs, input]
            if modules.eq_ignore_ascii_case("modules")
                && inputs.eq_ignore_ascii_case("inputs")
                && !module.is_empty()
                && !input.is_empty() =>
        {
            Ok(Sink::Input { module: (*module).to_owned(), input: (*input).to_owned() })
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_from_one_output_to_the_cloud_carries_that_output_alone() {
        let route = Route::parse("FROM /messages/modules/cam/outputs/events INTO $upstream").unwrap();
        assert_eq!(route.sink, Sink::Upstream);
        assert!(route.carries("cam", Some("events")));
        assert!(!route.carries("cam", Some("stats")));
        assert!(!route.carries("other", Some("events")));
        assert!(!route.carries("cam", None));
    }

    #[test]
    fn a_star_carries_everything_below_it() {
        for source in ["/*", "/messages/*", "/messages/modules/*", "/messages/modules/cam/*"] {
            let route = Route::parse(&format!("FROM {source} INTO $upstream")).unwrap();
            assert!(route.carries("cam", Some("events")) && route.carries("cam", None), "{source}");
        }
        let outputs = Route::parse("FROM /messages/modules/cam/outputs/* INTO $upstream").unwrap();
        assert!(outputs.carries("cam", Some("x")) && !outputs.carries("other", Some("x")));
        assert!(!Route::parse("FROM /twinChangeNotifications INTO $upstream").unwrap().carries("cam", None));
    }

    #[test]
    fn a_module_input_is_a_brokered_endpoint() {
        let route = Route::parse(
            "from /messages/modules/a/outputs/o into BrokeredEndpoint( \"/modules/b/inputs/in\" )",
        );
        let sink = Sink::Input { module: "b".into(), input: "in".into() };
        assert_eq!(route.unwrap().sink, sink);
        let single = Route::parse("FROM /* INTO BrokeredEndpoint('/modules/b/inputs/in')").unwrap();
        assert_eq!(single.sink, sink);
    }

    #[test]
    fn a_quoted_keyword_is_not_taken_for_the_end_of_a_condition() {
        let route = Route::parse("FROM /* WHERE $body.text = ' INTO ' AND x = '1' INTO $upstream").unwrap();
        let body = serde_json::json!({"text": " INTO "});
        for (x, passes) in [("1", true), ("2", false)] {
            let properties = [("x".to_owned(), x.to_owned())];
            assert_eq!(route.lets_pass(Message { properties: &properties, body: Some(&body) }), passes);
        }
    }

    #[test]
    fn routes_that_edge_hub_refuses_are_refused() {
        for text in [
            "",
            "INTO $upstream",
            "FROM /* INTO",
            "FROM /*",
            "FROM INTO $upstream",
            "FROM messages INTO $upstream",
            "FROM /a//b INTO $upstream",
            "FROM /*/x INTO $upstream",
            "FROM /* WHERE INTO $upstream",
            "FROM /* WHERE a ~ 1 INTO $upstream",
            "FROM /* INTO upstream",
            "FROM /* INTO BrokeredEndpoint(/modules/b/inputs/i)",
            "FROM /* INTO BrokeredEndpoint(\"/modules/b\")",
            "FROM /* INTO BrokeredEndpoint(\"/modules//inputs/i\")",
            "FROM /* x INTO $upstream",
        ] {
            assert!(Route::parse(text).is_err(), "{text:?} was taken");
        }
    }
}
