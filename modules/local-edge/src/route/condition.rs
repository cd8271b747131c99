//! Conditions of routes: the part of IoT Hub's query language that routes mostly use.
//!
//! `$body.path`, system properties (`$contentType`, `$connectionModuleId`, ..) and application properties by
//! name; texts, numbers, `true`, `false`, `null`; `=`, `!=`, `<>`, `<`, `<=`, `>`, `>=`; `AND`, `OR`, `NOT`,
//! parentheses; `is_defined(..)` and `as_number(..)`.

mod parse;

use std::cmp::Ordering;

use serde_json::Value;

pub use parse::ConditionError;

/// A condition that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition(Expression);

/// What a condition sees of a message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// All properties as they are on the wire: system properties begin with `$.`.
    pub properties: &'a [(String, String)],
    /// The body, if it can be queried: content type `application/json`, encoding UTF-8, and JSON.
    pub body: Option<&'a Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expression {
    Literal(Value),
    Body(Vec<String>),
    Property(String),
    IsDefined(Box<Self>),
    AsNumber(Box<Self>),
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Compare(Box<Self>, Comparison, Box<Self>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Different,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Condition {
    /// Reads a condition's text.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        parse::parse(text).map(Self)
    }

    /// Whether the message passes. What is not defined passes nothing.
    pub fn passes(&self, message: Message<'_>) -> bool {
        evaluate(&self.0, message) == Some(Value::Bool(true))
    }
}

/// `None` is *undefined*, which spreads through everything but `is_defined`, and AND and OR where the other side
/// decides.
fn evaluate(expression: &Expression, message: Message<'_>) -> Option<Value> {
    let truth = |expression: &Expression| evaluate(expression, message).and_then(|value| value.as_bool());
    match expression {
        Expression::Literal(value) => Some(value.clone()),
        Expression::Body(path) => path.iter().try_fold(message.body?, |value, name| value.get(name)).cloned(),
        Expression::Property(name) => {
            let found = message.properties.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
            Some(Value::String(found.1.clone()))
        }
        Expression::IsDefined(inner) => Some(evaluate(inner, message).is_some().into()),
        Expression::AsNumber(inner) => match evaluate(inner, message)? {
            Value::String(text) => text.trim().parse::<f64>().ok().map(Value::from),
            Value::Number(number) => Some(Value::Number(number)),
            _ => None,
        },
        Expression::Not(inner) => truth(inner).map(|truth| (!truth).into()),
        Expression::And(a, b) => match (truth(a), truth(b)) {
            (Some(false), _) | (_, Some(false)) => Some(false.into()),
            (Some(true), Some(true)) => Some(true.into()),
            _ => None,
        },
        Expression::Or(a, b) => match (truth(a), truth(b)) {
            (Some(true), _) | (_, Some(true)) => Some(true.into()),
            (Some(false), Some(false)) => Some(false.into()),
            _ => None,
        },
        Expression::Compare(a, comparison, b) => {
            compare(&evaluate(a, message)?, *comparison, &evaluate(b, message)?).map(Value::Bool)
        }
    }
}

/// Values of different kinds compare to nothing.
fn compare(a: &Value, comparison: Comparison, b: &Value) -> Option<bool> {
    let order = match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?)?,
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Null, Value::Null) => Ordering::Equal,
        _ => return None,
    };
    Some(match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::Different => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn passes(text: &str) -> bool {
        let properties: Vec<(String, String)> =
            [("$.ct", "application/json"), ("$.cmid", "cam"), ("level", "3"), ("kind", "it's")]
                .map(|(key, value)| (key.into(), value.into()))
                .into();
        let body = json!({"event": "inputLost", "count": 4, "at": {"x": null, "ok": true}});
        let message = Message { properties: &properties, body: Some(&body) };
        Condition::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).passes(message)
    }

    #[test]
    fn bodies_and_properties_are_compared() {
        for text in [
            "$body.event = 'inputLost'",
            "$body.event = \"inputLost\" and $body.count >= 4",
            "$body.count <> 5 AND NOT $body.count < 4",
            "$connectionModuleId = 'cam' AND $contentType != 'text/plain'",
            "as_number(level) > 2.5",
            "kind = 'it''s'",
            "false OR ($body.at.ok = true AND TRUE)",
            "is_defined($body.event) AND NOT is_defined($body.nothing)",
            "$body.at.x = null",
            "level = '3' OR $body.nothing = 1",
        ] {
            assert!(passes(text), "{text}");
        }
        for text in [
            "$body.event = 'other'",
            "$body.count > 4",
            "$body.nothing = 1",
            "NOT $body.nothing = 1",
            "$body.nothing != 1",
            "level = 3",
            "as_number($body.event) > 0",
            "$body.event",
            "$body.at.ok AND $body.nothing",
        ] {
            assert!(!passes(text), "{text}");
        }
    }

    #[test]
    fn a_body_that_is_no_json_has_nothing_in_it() {
        let message = Message { properties: &[], body: None };
        assert!(!Condition::parse("is_defined($body.a)").unwrap().passes(message));
        assert!(Condition::parse("NOT is_defined($body.a)").unwrap().passes(message));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, said) in [
            ("", "ends too early"),
            ("$body.a = ", "ends too early"),
            ("a = 'open", "'open"),
            ("substring(a, 1) = 'x'", "substring"),
            ("a + 1 = 2", "+"),
            ("a = 1 b", "b"),
            ("$nonsense = 1", "$nonsense"),
            ("(a = 1", "ends too early"),
            ("a IN ('x')", "IN"),
        ] {
            let error = Condition::parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
        assert!(Condition::parse(&"(".repeat(10_000)).is_err());
        assert!(Condition::parse(&"NOT ".repeat(10_000)).is_err());
        assert!(Condition::parse(&format!("a{}", " AND a".repeat(10_000))).is_err());
    }
}
