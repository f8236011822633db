//! Reading a step's input.

use orchestra::saga::barrier::sqlite::Abort;
use serde_json::{Value, json};

/// A definite no, with a code for programs and a sentence for people.
pub fn refuse(code: &str, reason: impl Into<String>) -> Abort {
    Abort::rejected(json!({ "code": code, "reason": reason.into() }).to_string())
}

pub fn text<'a>(input: &'a Value, field: &str) -> Result<&'a str, Abort> {
    input[field]
        .as_str()
        .ok_or_else(|| refuse("bad_input", format!("`{field}` is not a text")))
}

pub fn number(input: &Value, field: &str) -> Result<i64, Abort> {
    input[field]
        .as_i64()
        .ok_or_else(|| refuse("bad_input", format!("`{field}` is not an integer")))
}
