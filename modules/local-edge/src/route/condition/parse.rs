//! From a condition's text to what it means: recursive descent, OR below AND below NOT below comparisons.

use serde_json::Value;

use super::{Comparison, Expression};

/// Words and signs of one condition; bounds the depth of what is built of them too.
const MAX_TOKENS: usize = 500;
/// Parentheses and NOTs within each other.
const MAX_DEPTH: usize = 50;

/// Why a condition is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// Something more was expected.
    #[error("it ends too early")]
    End,
    /// Not known here, or in the wrong place.
    #[error("{0:?} is not understood here")]
    Unexpected(String),
    /// Much too much of it.
    #[error("more than {MAX_TOKENS} words, or more than {MAX_DEPTH} levels deep")]
    TooLong,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Sign(&'static str),
}

impl Token {
    fn refused(&self) -> ConditionError {
        ConditionError::Unexpected(match self {
            Self::Word(text) | Self::Text(text) => text.clone(),
            Self::Sign(sign) => (*sign).to_owned(),
        })
    }
}

/// Longer ones first.
const SIGNS: [&str; 10] = ["!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", ","];

fn tokens(text: &str) -> Result<Vec<Token>, ConditionError> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if tokens.len() >= MAX_TOKENS {
            return Err(ConditionError::TooLong);
        }
        let shown = || ConditionError::Unexpected(rest.chars().take(40).collect());
        if first == '\'' || first == '"' {
            let (token, length) = quoted(rest, first).ok_or_else(shown)?;
            tokens.push(Token::Text(token));
            rest = rest.get(length..).unwrap_or_default();
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            tokens.push(Token::Sign(sign));
            rest = rest.get(sign.len()..).unwrap_or_default();
        } else {
            let part = |c: char| c.is_alphanumeric() || "_$.-".contains(c);
            let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
            let word = rest.get(..end).filter(|word| !word.is_empty()).ok_or_else(shown)?;
            tokens.push(Token::Word(word.to_owned()));
            rest = rest.get(end..).unwrap_or_default();
        }
        rest = rest.trim_start();
    }
    Ok(tokens)
}

/// A text in quotes, which stand twice where they are meant, and its length with them.
fn quoted(rest: &str, quote: char) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            text.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            text.push(quote);
        } else {
            return Some((text, at + 1));
        }
    }
    None
}

pub(super) fn parse(text: &str) -> Result<Expression, ConditionError> {
    let mut parser = Parser { tokens: tokens(text)?.into_iter().peekable(), depth: 0 };
    let expression = parser.either()?;
    match parser.tokens.next() {
        None => Ok(expression),
        Some(token) => Err(token.refused()),
    }
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    depth: usize,
}

type Parsed = Result<Expression, ConditionError>;

impl Parser {
    fn take_word(&mut self, keyword: &str) -> bool {
        let is_it = |token: &Token| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(keyword));
        self.tokens.next_if(is_it).is_some()
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), ConditionError> {
        match self.tokens.next() {
            Some(token) if token == Token::Sign(sign) => Ok(()),
            Some(token) => Err(token.refused()),
            None => Err(ConditionError::End),
        }
    }

    /// Everything that can hold itself goes through here.
    fn either(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ConditionError::TooLong);
        }
        let mut expression = self.both()?;
        while self.take_word("OR") {
            expression = Expression::Or(Box::new(expression), Box::new(self.both()?));
        }
        self.depth -= 1;
        Ok(expression)
    }

    fn both(&mut self) -> Parsed {
        let mut expression = self.negation()?;
        while self.take_word("AND") {
            expression = Expression::And(Box::new(expression), Box::new(self.negation()?));
        }
        Ok(expression)
    }

    fn negation(&mut self) -> Parsed {
        if !self.take_word("NOT") {
            return self.comparison();
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ConditionError::TooLong);
        }
        let inner = self.negation()?;
        self.depth -= 1;
        Ok(Expression::Not(Box::new(inner)))
    }

    fn comparison(&mut self) -> Parsed {
        let left = self.value()?;
        let comparison = match self.tokens.peek() {
            Some(Token::Sign("=")) => Comparison::Equal,
            Some(Token::Sign("!=" | "<>")) => Comparison::Different,
            Some(Token::Sign("<")) => Comparison::Less,
            Some(Token::Sign("<=")) => Comparison::LessOrEqual,
            Some(Token::Sign(">")) => Comparison::Greater,
            Some(Token::Sign(">=")) => Comparison::GreaterOrEqual,
            _ => return Ok(left),
        };
        self.tokens.next();
        Ok(Expression::Compare(Box::new(left), comparison, Box::new(self.value()?)))
    }

    fn value(&mut self) -> Parsed {
        let word = match self.tokens.next().ok_or(ConditionError::End)? {
            Token::Text(text) => return Ok(Expression::Literal(text.into())),
            Token::Sign("(") => {
                let inner = self.either()?;
                return self.expect(")").map(|()| inner);
            }
            Token::Word(word) => word,
            sign => return Err(sign.refused()),
        };
        if self.tokens.peek() == Some(&Token::Sign("(")) {
            let function: fn(Box<Expression>) -> Expression = match word.to_ascii_lowercase().as_str() {
                "is_defined" => Expression::IsDefined,
                "as_number" => Expression::AsNumber,
                _ => return Err(ConditionError::Unexpected(word)),
            };
            self.tokens.next();
            let inner = self.either()?;
            return self.expect(")").map(|()| function(Box::new(inner)));
        }
        named(&word)
    }
}

/// A word that stands for a value.
fn named(word: &str) -> Parsed {
    let refused = || ConditionError::Unexpected(word.to_owned());
    match word.to_ascii_lowercase().as_str() {
        "true" => return Ok(Expression::Literal(true.into())),
        "false" => return Ok(Expression::Literal(false.into())),
        "null" => return Ok(Expression::Literal(Value::Null)),
        "and" | "or" | "in" => return Err(refused()),
        _ => {}
    }
    if let Some(path) = word.strip_prefix("$body.") {
        let path: Vec<String> = path.split('.').map(Into::into).collect();
        return if path.iter().any(String::is_empty) { Err(refused()) } else { Ok(Expression::Body(path)) };
    }
    if let Some(name) = word.strip_prefix('$') {
        let key = match name.to_ascii_lowercase().as_str() {
            "contenttype" => "$.ct",
            "contentencoding" => "$.ce",
            "messageid" => "$.mid",
            "correlationid" => "$.cid",
            "userid" => "$.uid",
            "connectiondeviceid" => "$.cdid",
            "connectionmoduleid" => "$.cmid",
            "outputname" => "$.on",
            _ => return Err(refused()),
        };
        return Ok(Expression::Property(key.to_owned()));
    }
    if word.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.') {
        let number: f64 = word.parse().map_err(|_| refused())?;
        return Ok(Expression::Literal(number.into()));
    }
    if word.contains('.') { Err(refused()) } else { Ok(Expression::Property(word.to_owned())) }
}
