use std::fmt;

use crate::{Masked, Masker};

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(untagged))]
#[non_exhaustive]
pub enum Attribute {
    /// A text, masked.
    Text(Masked<String>),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A truth value.
    Bool(bool),
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Int(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Bool(truth) => truth.fmt(f),
        }
    }
}

/// A value on its way to become an [`Attribute`]: not masked yet, so it can only be handed to a span.
#[derive(Clone)]
pub struct Raw<'a>(Inner<'a>);

#[derive(Clone)]
enum Inner<'a> {
    Text(std::borrow::Cow<'a, str>),
    Int(i64),
    Float(f64),
    Bool(bool),
}

impl fmt::Debug for Raw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Raw(..)")
    }
}

impl Raw<'_> {
    /// Numbers are looked at as well: a card number may travel as one.
    pub(super) fn masked(&self, name: &str, masker: &Masker, max: usize) -> Attribute {
        let plain = match &self.0 {
            Inner::Text(text) => {
                return Attribute::Text(masker.field_to(name, text, max).into_owned());
            }
            Inner::Int(number) => Attribute::Int(*number),
            Inner::Float(number) => Attribute::Float(*number),
            Inner::Bool(truth) => Attribute::Bool(*truth),
        };
        let text = plain.to_string();
        let masked = masker.field(name, &text);
        if masked.as_str() == text {
            plain
        } else {
            Attribute::Text(masked.into_owned())
        }
    }
}

impl<'a> From<&'a str> for Raw<'a> {
    fn from(text: &'a str) -> Self {
        Self(Inner::Text(text.into()))
    }
}

impl<'a> From<&'a String> for Raw<'a> {
    fn from(text: &'a String) -> Self {
        Self(Inner::Text(text.into()))
    }
}

impl From<String> for Raw<'_> {
    fn from(text: String) -> Self {
        Self(Inner::Text(text.into()))
    }
}

impl From<f64> for Raw<'_> {
    fn from(number: f64) -> Self {
        Self(Inner::Float(number))
    }
}

impl From<bool> for Raw<'_> {
    fn from(truth: bool) -> Self {
        Self(Inner::Bool(truth))
    }
}

macro_rules! from_int {
    ($($int:ty),+) => {$(
        impl From<$int> for Raw<'_> {
            fn from(number: $int) -> Self {
                Self(Inner::Int(number.into()))
            }
        }
    )+};
}

from_int!(i64, i32, u32, u16, u8);
