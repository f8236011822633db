use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{InvalidLabel, Labels, check_key, check_value};

/// The longest text that is parsed as a selector, in bytes.
pub(super) const MAX_TEXT: usize = 64 * 1024;

/// Why a text is not a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidSelector {
    at: usize,
    reason: String,
}

impl InvalidSelector {
    fn new(at: usize, reason: impl Into<String>) -> Self {
        Self {
            at,
            reason: reason.into(),
        }
    }

    /// The byte at which the text stops making sense.
    pub fn position(&self) -> usize {
        self.at
    }
}

impl fmt::Display for InvalidSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid selector at byte {}: {}", self.at, self.reason)
    }
}

impl std::error::Error for InvalidSelector {}

/// What a [`Requirement`] asks of the value of its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operator {
    /// The key is present and its value is one of these.
    In(BTreeSet<Arc<str>>),
    /// The key is absent, or its value is none of these.
    NotIn(BTreeSet<Arc<str>>),
    /// The key is present.
    Exists,
    /// The key is absent.
    DoesNotExist,
    /// The value is an integer greater than this.
    Gt(i64),
    /// The value is an integer less than this.
    Lt(i64),
}

/// One condition on one key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    key: Arc<str>,
    operator: Operator,
}

impl Requirement {
    /// Checks the key, the values, and that `In` and `NotIn` have at least one value.
    pub fn new(key: &str, operator: Operator) -> Result<Self, InvalidLabel> {
        check_key(key)?;
        if let Operator::In(values) | Operator::NotIn(values) = &operator {
            if values.is_empty() {
                return Err(InvalidLabel::new("key", key, "needs at least one value"));
            }
            values.iter().try_for_each(|value| check_value(value))?;
        }
        Ok(Self {
            key: Arc::from(key),
            operator,
        })
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The condition on its value.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// Whether `labels` meet the condition.
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.value(&self.key);
        let number = || value.and_then(|text| text.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt(bound) => number().is_some_and(|number| number > *bound),
            Operator::Lt(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, operator } = self;
        match operator {
            Operator::In(values) => match (values.len(), values.first()) {
                (1, Some(value)) => write!(f, "{key}={value}"),
                _ => write_set(f, key, "in", values),
            },
            Operator::NotIn(values) => match (values.len(), values.first()) {
                (1, Some(value)) => write!(f, "{key}!={value}"),
                _ => write_set(f, key, "notin", values),
            },
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::Gt(bound) => write!(f, "{key}>{bound}"),
            Operator::Lt(bound) => write!(f, "{key}<{bound}"),
        }
    }
}

fn write_set(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    word: &str,
    values: &BTreeSet<Arc<str>>,
) -> fmt::Result {
    write!(f, "{key} {word} (")?;
    for (index, value) in values.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(f, "{comma}{value}")?;
    }
    f.write_str(")")
}

/// A conjunction of requirements; empty, it matches everything.
///
/// Requirements are kept in the order of their keys, so equal selectors print alike.
///
/// ```
/// use orchestra_core::Selector;
///
/// let selector: Selector = "gpu, zone in (b,a), generation>3".parse()?;
/// assert_eq!(selector.to_string(), "generation>3,gpu,zone in (a,b)");
/// # Ok::<(), orchestra_core::InvalidSelector>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(Vec<Requirement>);

impl Selector {
    /// The selector that matches everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Whether every requirement is met.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }

    /// The requirements in the order of their keys.
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }

    /// The labels that it asks for, if a value for each of some keys is all that it asks for.
    ///
    /// ```
    /// use orchestra_core::{Labels, Selector};
    ///
    /// let asked: Selector = "version=2,stage=prod".parse()?;
    /// let labels: Labels = [("stage", "prod"), ("version", "2")].try_into()?;
    /// assert_eq!(asked.to_labels(), Some(labels));
    /// for more in ["version", "version!=2", "version in (1,2)", "version=1,version=2"] {
    ///     assert_eq!(more.parse::<Selector>()?.to_labels(), None);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_labels(&self) -> Option<Labels> {
        let mut pairs = BTreeMap::new();
        for Requirement { key, operator } in &self.0 {
            let Operator::In(values) = operator else {
                return None;
            };
            let value = values.first().filter(|_| values.len() == 1)?;
            if pairs.insert(Arc::clone(key), Arc::clone(value)).is_some() {
                return None;
            }
        }
        Some(Labels(Arc::new(pairs)))
    }
}

impl FromIterator<Requirement> for Selector {
    fn from_iter<I: IntoIterator<Item = Requirement>>(requirements: I) -> Self {
        let mut requirements = Vec::from_iter(requirements);
        requirements.sort();
        requirements.dedup();
        Self(requirements)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        if text.len() > MAX_TEXT {
            return Err(InvalidSelector::new(MAX_TEXT, "longer than 64 KiB"));
        }
        Parser { text, at: 0 }.selector()
    }
}

/// Recursive descent over the bytes of the text; it allocates only for what it returns.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn selector(mut self) -> Result<Selector, InvalidSelector> {
        let mut requirements = Vec::new();
        self.skip_space();
        if self.is_done() {
            return Ok(Selector::everything());
        }
        loop {
            requirements.push(self.requirement()?);
            self.skip_space();
            if self.is_done() {
                return Ok(requirements.into_iter().collect());
            }
            self.expect(",")?;
        }
    }

    fn requirement(&mut self) -> Result<Requirement, InvalidSelector> {
        self.skip_space();
        let start = self.at;
        if self.take("!") {
            self.skip_space();
            let key = self.word();
            return Self::build(start, key, Operator::DoesNotExist);
        }
        let key = self.word();
        let operator = self.operator()?;
        Self::build(start, key, operator)
    }

    fn build(at: usize, key: &str, operator: Operator) -> Result<Requirement, InvalidSelector> {
        Requirement::new(key, operator).map_err(|error| InvalidSelector::new(at, error.to_string()))
    }

    fn operator(&mut self) -> Result<Operator, InvalidSelector> {
        self.skip_space();
        if self.is_done() || self.rest().starts_with(',') {
            return Ok(Operator::Exists);
        }
        if self.take("!=") {
            return Ok(Operator::NotIn(self.one_value()));
        }
        if self.take("==") || self.take("=") {
            return Ok(Operator::In(self.one_value()));
        }
        if self.take(">") {
            return self.integer().map(Operator::Gt);
        }
        if self.take("<") {
            return self.integer().map(Operator::Lt);
        }
        let at = self.at;
        match self.word() {
            "in" => self.set().map(Operator::In),
            "notin" => self.set().map(Operator::NotIn),
            _ => Err(InvalidSelector::new(
                at,
                "expected one of `,` `=` `==` `!=` `>` `<` `in` `notin`",
            )),
        }
    }

    fn one_value(&mut self) -> BTreeSet<Arc<str>> {
        self.skip_space();
        BTreeSet::from([Arc::from(self.word())])
    }

    fn integer(&mut self) -> Result<i64, InvalidSelector> {
        self.skip_space();
        let at = self.at;
        let word = self.word();
        word.parse()
            .map_err(|_error| InvalidSelector::new(at, "expected a 64-bit integer"))
    }

    fn set(&mut self) -> Result<BTreeSet<Arc<str>>, InvalidSelector> {
        self.skip_space();
        self.expect("(")?;
        let mut values = BTreeSet::new();
        loop {
            self.skip_space();
            values.insert(Arc::from(self.word()));
            self.skip_space();
            if self.take(")") {
                return Ok(values);
            }
            self.expect(",")?;
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn is_done(&self) -> bool {
        self.at >= self.text.len()
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), InvalidSelector> {
        if self.take(token) {
            return Ok(());
        }
        Err(InvalidSelector::new(self.at, format!("expected `{token}`")))
    }

    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest
            .find(|c: char| {
                c.is_whitespace() || matches!(c, ',' | '=' | '!' | '(' | ')' | '<' | '>')
            })
            .unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }
}
