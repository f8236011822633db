use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use http::Method;
use orchestra_core::ServiceName;
use serde_json::{Value, json};

use super::{Call, Operation, StepOutcome};
use crate::payload::Payload;

/// A declarative step: which request to send to which service.
///
/// The path and the strings of the body are templates. `${input.order.id}` is the member `id` of the
/// member `order` of the step's input, `${output.hold}` a member of the action's output (compensations
/// only), a number indexes an array; `${saga}` and `${step}` name the call; `$$` is a dollar. In the path,
/// values are percent-encoded; a string of the body that is one template becomes the value itself,
/// whatever its type. A member that is missing refuses the step before anything is sent: a compensation that
/// needs `${output…}` parks the saga when nobody heard what the action returned, so let participants keep what
/// they did under `${saga}`, or give the step a [`probe`](crate::definition::StepBuilder::probe_with).
///
/// ```
/// use http::Method;
/// use orchestra_core::ServiceName;
/// use orchestra_saga::StepCall;
///
/// let reserve = StepCall::new(ServiceName::new("inventory")?, Method::POST, "/holds/${input.order}")
///     .body(serde_json::json!({ "item": "${input.item}", "note": "for ${input.order}" }));
/// assert_eq!(reserve.service().as_str(), "inventory");
/// # Ok::<(), orchestra_core::InvalidName>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct StepCall {
    service: ServiceName,
    method: Method,
    path: String,
    body: Body,
    /// The names that templates may use beside those of every call; the step's input, if none.
    names: Option<Vec<Arc<str>>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Body {
    Input,
    Template(Value),
    Empty,
}

impl StepCall {
    /// A request whose body is the step's input.
    pub fn new(service: ServiceName, method: Method, path: impl Into<String>) -> Self {
        Self {
            service,
            method,
            path: path.into(),
            body: Body::Input,
            names: None,
        }
    }

    /// Templates use these names, which are the members of the step's input.
    pub(crate) fn named(mut self, names: Vec<Arc<str>>) -> Self {
        self.names = Some(names);
        self
    }

    /// What the templates begin with, beside `saga` and `step`.
    pub(crate) fn roots(&self) -> Result<BTreeSet<String>, String> {
        let mut roots = BTreeSet::new();
        let mut note = |path: &str| {
            let root = path.split('.').next().unwrap_or_default();
            if !matches!(root, "saga" | "step") {
                roots.insert(root.to_owned());
            }
        };
        paths(&self.path, &mut note)?;
        if let Body::Template(template) = &self.body {
            paths_of_value(template, &mut note)?;
        }
        Ok(roots)
    }

    /// Sends this JSON, its strings resolved as templates.
    #[must_use]
    pub fn body(mut self, template: Value) -> Self {
        self.body = Body::Template(template);
        self
    }

    /// Sends no body.
    #[must_use]
    pub fn no_body(mut self) -> Self {
        self.body = Body::Empty;
        self
    }

    /// The service that is called.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// What of the request stands in the definition's hash.
    pub(crate) fn digest(&self) -> String {
        let body = match &self.body {
            Body::Input => "input".to_owned(),
            Body::Template(template) => template.to_string(),
            Body::Empty => "empty".to_owned(),
        };
        format!("{} {} {} {body}", self.service, self.method, self.path)
    }

    /// Checks the templates, before any saga runs. Only what comes after the action knows its output.
    pub(crate) fn check(&self, op: Operation) -> Result<(), String> {
        if !self.path.starts_with('/') {
            return Err(format!("path {:?} does not begin with `/`", self.path));
        }
        for root in self.roots()? {
            let known = match (&*root, &self.names) {
                ("output", _) => op == Operation::Compensation,
                ("input", None) => true,
                (root, Some(names)) => names.iter().any(|name| **name == *root),
                _ => false,
            };
            if !known {
                return Err(format!(
                    "a template of its {op} names {root:?}, which is not there"
                ));
            }
        }
        Ok(())
    }

    /// The request of this call, or why it cannot be made.
    pub fn resolve(&self, call: &Call) -> Result<StepRequest, String> {
        let mut scope = match &self.names {
            Some(_) => call.input.value(),
            None => json!({ "input": call.input.value() }),
        };
        if let Value::Object(scope) = &mut scope {
            let output = call.output.as_ref().map(Payload::value);
            scope.insert("output".to_owned(), output.unwrap_or_default());
            scope.insert("saga".to_owned(), call.saga.to_string().into());
            scope.insert("step".to_owned(), call.step.as_str().into());
        }
        let body = match &self.body {
            Body::Input => Some(call.input.as_str().to_owned()),
            Body::Template(template) => Some(fill_value(template, &scope)?.to_string()),
            Body::Empty => None,
        };
        let path = fill_text(&self.path, &scope, percent_encode)?;
        // Servers and proxies resolve dot segments, so such a value would address another resource.
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(format!("path {path:?} has a dot segment"));
        }
        Ok(StepRequest {
            service: self.service.clone(),
            method: self.method.clone(),
            path,
            body: body.map(String::into_bytes),
            call: call.clone(),
        })
    }
}

/// A request to a participant: send it with [`Call::headers`] and give up after its
/// [`budget`](crate::step::Attempt::budget).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StepRequest {
    /// The service to call.
    pub service: ServiceName,
    /// The method.
    pub method: Method,
    /// The path, percent-encoded.
    pub path: String,
    /// The JSON to send.
    pub body: Option<Vec<u8>>,
    /// The attempt that it belongs to.
    pub call: Call,
}

/// Sends the requests of declarative steps.
///
/// Laws: 1. the request is sent with the headers of its call; 2. the outcome obeys the laws of
/// [`Step`](super::Step): `Retryable` and `Rejected` mean that nothing happened, and whatever may have
/// reached the participant without an answer is `Unknown` ([`StepOutcome::from_http`] maps answers);
/// 3. it does not retry on its own after the request may have been sent: the saga counts attempts.
///
/// Cancel: the future is dropped when the attempt's deadline passes, and the outcome is `Unknown`.
#[async_trait]
pub trait Caller: fmt::Debug + Send + Sync {
    /// Makes one attempt.
    async fn call(&self, request: StepRequest) -> StepOutcome;
}

#[async_trait]
impl<T: Caller + ?Sized> Caller for Arc<T> {
    async fn call(&self, request: StepRequest) -> StepOutcome {
        (**self).call(request).await
    }
}

/// A template cut into its texts and its dotted paths.
enum Piece<'a> {
    Text(&'a str),
    Path(&'a str),
}

fn pieces(template: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        let (text, tail) = rest.split_at(at);
        pieces.push(Piece::Text(text));
        if let Some(after) = tail.strip_prefix("$$") {
            pieces.push(Piece::Text("$"));
            rest = after;
        } else if let Some(open) = tail.strip_prefix("${") {
            let (path, after) = open
                .split_once('}')
                .ok_or_else(|| format!("template {template:?} has an unmatched brace"))?;
            if path.is_empty() || path.split('.').any(str::is_empty) {
                return Err(format!(
                    "template {template:?} has a path with an empty part"
                ));
            }
            pieces.push(Piece::Path(path));
            rest = after;
        } else {
            return Err(format!(
                "template {template:?} has a `$` that is neither `$$` nor `${{`"
            ));
        }
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

fn paths(template: &str, note: &mut impl FnMut(&str)) -> Result<(), String> {
    for piece in pieces(template)? {
        if let Piece::Path(path) = piece {
            note(path);
        }
    }
    Ok(())
}

fn paths_of_value(template: &Value, note: &mut impl FnMut(&str)) -> Result<(), String> {
    match template {
        Value::String(text) => paths(text, note),
        Value::Array(items) => items.iter().try_for_each(|item| paths_of_value(item, note)),
        Value::Object(members) => members
            .values()
            .try_for_each(|item| paths_of_value(item, note)),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn look_up<'a>(path: &str, scope: &'a Value) -> Result<&'a Value, String> {
    path.split('.')
        .try_fold(scope, |value, part| match value {
            Value::Array(items) => items.get(part.parse::<usize>().ok()?),
            _ => value.get(part),
        })
        .filter(|value| !value.is_null())
        .ok_or_else(|| match scope.get("output") {
            Some(Value::Null) if path.split('.').next() == Some("output") => {
                format!("`{path}` is missing: what the action returned is not known")
            }
            _ => format!("`{path}` is missing"),
        })
}

fn fill_text(template: &str, scope: &Value, encode: fn(&str) -> String) -> Result<String, String> {
    let mut filled = String::with_capacity(template.len());
    for piece in pieces(template)? {
        match piece {
            Piece::Text(text) => filled.push_str(text),
            Piece::Path(path) => match look_up(path, scope)? {
                Value::String(text) => filled.push_str(&encode(text)),
                value @ (Value::Bool(_) | Value::Number(_)) => {
                    filled.push_str(&encode(&value.to_string()));
                }
                _ => return Err(format!("`{path}` is not a text, number or boolean")),
            },
        }
    }
    Ok(filled)
}

fn fill_value(template: &Value, scope: &Value) -> Result<Value, String> {
    match template {
        Value::String(text) => {
            if let [Piece::Text(""), Piece::Path(path), Piece::Text("")] = *pieces(text)? {
                return look_up(path, scope).cloned();
            }
            fill_text(text, scope, str::to_owned).map(Value::String)
        }
        Value::Array(items) => items.iter().map(|item| fill_value(item, scope)).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| Ok((key.clone(), fill_value(value, scope)?)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(template.clone()),
    }
}

/// Leaves the unreserved characters of RFC 3986 and encodes all else, so a value stays one segment.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    encoded
}
