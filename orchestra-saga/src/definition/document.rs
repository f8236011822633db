//! Definitions as documents: every step is a request, a pause or a signal, and all of it is data. What may
//! stand in one is told at [`Definition::from_json`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use orchestra_core::{Backoff, Jitter, ServiceName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::handle::Edges;
use super::step::Draft;
use super::{Body, Builder, Definition, Kind, Shape, Source, Unwind};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::retry::Retry;
use crate::step::StepCall;

/// The most of a document that is read, in bytes.
const LONGEST: usize = 4 * 1024 * 1024;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    id: String,
    version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unwind: Option<Unwind>,
    steps: Vec<StepDocument>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepDocument {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
    /// The steps that it follows beside those that it reads; the one before it if there is no list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sleep_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signal: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        alias = "serviceName"
    )]
    service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "timeout")]
    timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt_timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retries: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backoff: Option<BackoffDocument>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    non_retryable: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compensation: Option<RequestDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    probe: Option<RequestDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    save_point: Option<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    commutative: bool,
}

/// What undoes a step, or asks whether it was done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestDocument {
    #[serde(alias = "serviceName")]
    service: String,
    method: String,
    endpoint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "timeout")]
    timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retries: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backoff: Option<BackoffDocument>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(
    tag = "growth",
    rename_all = "snake_case",
    deny_unknown_fields,
    expecting = "a growth (fixed, linear, exponential or decorrelated) with its base_ms"
)]
enum BackoffDocument {
    Fixed {
        base_ms: u64,
    },
    Linear {
        base_ms: u64,
        #[serde(default)]
        max_ms: Option<u64>,
        #[serde(default)]
        jitter: JitterDocument,
    },
    Exponential {
        base_ms: u64,
        #[serde(default)]
        factor: Option<f64>,
        #[serde(default)]
        max_ms: Option<u64>,
        #[serde(default)]
        jitter: JitterDocument,
    },
    Decorrelated {
        base_ms: u64,
        #[serde(default)]
        max_ms: Option<u64>,
    },
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum JitterDocument {
    None,
    #[default]
    Full,
    Equal,
}

impl BackoffDocument {
    fn backoff(&self) -> Backoff {
        let ms = Duration::from_millis;
        let (backoff, most, jitter) = match *self {
            Self::Fixed { base_ms } => return Backoff::fixed(ms(base_ms)),
            Self::Decorrelated { base_ms, max_ms } => {
                (Backoff::decorrelated(ms(base_ms)), max_ms, None)
            }
            Self::Linear {
                base_ms,
                max_ms,
                jitter,
            } => (Backoff::linear(ms(base_ms)), max_ms, Some(jitter)),
            Self::Exponential {
                base_ms,
                factor,
                max_ms,
                jitter,
            } => {
                let backoff = Backoff::exponential(ms(base_ms), factor.unwrap_or(2.0));
                (backoff, max_ms, Some(jitter))
            }
        };
        let backoff = most.map_or(backoff, |most| backoff.cap(ms(most)));
        match jitter {
            Some(JitterDocument::None) => backoff.jitter(Jitter::None),
            Some(JitterDocument::Equal) => backoff.jitter(Jitter::Equal),
            Some(JitterDocument::Full) | None => backoff,
        }
    }
}

impl Definition {
    /// Reads a definition from JSON. Every step is a request, a pause or a signal; an executor sends the requests
    /// through its [`Caller`](crate::Caller).
    ///
    /// ```
    /// use orchestra_saga::{Definition, Kind};
    ///
    /// let text = r#"{
    ///     "id": "checkout", "version": "1",
    ///     "steps": [
    ///         { "name": "reserve", "service": "stock", "method": "POST", "endpoint": "/holds/${saga}",
    ///           "parameters": { "item": "${input.item}" },
    ///           "compensation": {
    ///               "service": "stock", "method": "DELETE", "endpoint": "/holds/${saga}" } },
    ///         { "name": "charge", "service": "bank", "method": "POST", "endpoint": "/charges",
    ///           "parameters": { "hold": "${reserve.id}" }, "kind": "pivot" }
    ///     ]
    /// }"#;
    /// let checkout = Definition::from_json(text)?;
    /// assert_eq!(checkout.steps().last().map(|(_, kind)| kind), Some(Kind::Pivot));
    ///
    /// let wrong = Definition::from_json(&text.replace("reserve.id", "reserved.id")).unwrap_err();
    /// assert!(wrong.to_string().contains("reserved"));
    /// # Ok::<(), orchestra_saga::Error>(())
    /// ```
    ///
    /// # The document
    ///
    /// It has `id`, `version`, `steps`, and, if it wants them, `timeout_ms`
    /// ([`Builder::timeout`](crate::definition::Builder::timeout)) and `unwind`
    /// ([`Unwind`]: `parallel`, `sequential`, `unordered`, `never`). A member that is not known is an error.
    ///
    /// | member of a step | meaning |
    /// |---|---|
    /// | `name` | its name, by which later steps read its output |
    /// | `service`, `method`, `endpoint`, `parameters` | the request; `parameters` are the JSON of its body, and there is none without |
    /// | `sleep_ms` | in place of a request: waits that long; see [`Builder::sleep`] for the limit |
    /// | `signal` | in place of a request: waits for a signal of this name, no longer than `timeout_ms` if there is one |
    /// | `kind` | `pivot`, `retriable` or `read_only`; without one it needs a `compensation` |
    /// | `compensation` | a request that undoes it, with its own `timeout_ms` (of one attempt), `retries` and `backoff` |
    /// | `probe` | a request that asks whether it took effect, when nobody knows |
    /// | `after` | names of steps that it follows beside those that it reads; without the list, the step before it |
    /// | `timeout_ms`, `attempt_timeout_ms` | the time for all attempts, and for one |
    /// | `retries`, `backoff` | how often and how fast it is tried again |
    /// | `non_retryable` | texts; an answer that has one of them is a refusal |
    /// | `save_point` | how often the saga may go back to it and forward again |
    /// | `commutative` | whether it may be undone in any order |
    ///
    /// A `backoff` has a `growth` (`fixed`, `linear`, `exponential`, `decorrelated`), `base_ms`, and, where the
    /// growth has them, `factor`, `max_ms` and `jitter` (`none`, `full`, `equal`).
    ///
    /// # Templates
    ///
    /// The endpoint and the texts of the parameters may have `${input.item}`, a member of the saga's input;
    /// `${reserve.id}`, of the output of an earlier step, which this one then follows; `${saga}` and `${step}`;
    /// in a compensation, `${output.id}`, of the output of the step itself. `$$` is a dollar. See
    /// [`StepCall`] for how values are put in. A name that is not there is an error of the document; a member that
    /// is missing refuses the step before anything is sent.
    ///
    /// When nobody heard the answer of an action, its output is not known: a compensation that needs
    /// `${output…}` cannot be sent then, and parks the saga. Let participants keep what they did under the
    /// saga's id, as above, or give the step a `probe`, whose answer takes the place of the output.
    pub fn from_json(text: &str) -> Result<Self> {
        Self::from_json_with(text, &Config::default())
    }

    /// Reads a definition from JSON; what it does not say is as in `config`.
    pub fn from_json_with(text: &str, config: &Config) -> Result<Self> {
        parsed(text, config)?.build()
    }

    /// As it was when sagas of it began, which go on by it.
    pub(super) fn kept(text: &str, config: &Config) -> Result<Self> {
        parsed(text, config)?.freeze()
    }

    /// Reads a definition from YAML: the document of [`Definition::from_json`], which says what may stand in it.
    ///
    /// ```
    /// let checkout = orchestra_saga::Definition::from_yaml(
    ///     r#"
    /// id: checkout
    /// version: "1"
    /// steps:
    ///   - name: reserve
    ///     service: inventory
    ///     method: POST
    ///     endpoint: /holds/${saga}
    ///     parameters: { item: "${input.item}", count: "${input.count}" }
    ///     compensation: { service: inventory, method: DELETE, endpoint: "/holds/${saga}" }
    ///   - name: charge
    ///     service: payment
    ///     method: POST
    ///     endpoint: /charges
    ///     parameters: { hold: "${reserve.id}", order: "${input.order}" }
    ///     kind: pivot
    ///     retries: 5
    ///     backoff: { growth: exponential, base_ms: 200, max_ms: 5000 }
    /// "#,
    /// )?;
    /// assert_eq!(checkout.services().len(), 2);
    /// # Ok::<(), orchestra_saga::Error>(())
    /// ```
    #[cfg(feature = "yaml")]
    #[cfg_attr(docsrs, doc(cfg(feature = "yaml")))]
    pub fn from_yaml(text: &str) -> Result<Self> {
        Self::from_yaml_with(text, &Config::default())
    }

    /// Reads a definition from YAML; what it does not say is as in `config`.
    #[cfg(feature = "yaml")]
    #[cfg_attr(docsrs, doc(cfg(feature = "yaml")))]
    pub fn from_yaml_with(text: &str, config: &Config) -> Result<Self> {
        check_length(text)?;
        let document = serde_saphyr::from_str(text).map_err(|source| {
            let message = format!("saga definition cannot be read: {source}");
            Error::new(ErrorKind::InvalidDefinition, message)
        })?;
        from(&document, config)?.build()
    }
}

fn check_length(text: &str) -> Result<()> {
    if text.len() <= LONGEST {
        return Ok(());
    }
    let message = format!(
        "saga definition of {} bytes: {LONGEST} are read",
        text.len()
    );
    Err(Error::new(ErrorKind::InvalidDefinition, message))
}

fn unreadable(source: &serde_json::Error) -> Error {
    let message = format!("saga definition cannot be read: {source}");
    Error::new(ErrorKind::InvalidDefinition, message)
}

fn parsed(text: &str, config: &Config) -> Result<Builder> {
    check_length(text)?;
    let document = serde_json::from_str(text).map_err(|source| unreadable(&source))?;
    from(&document, config)
}

fn from(document: &Document, config: &Config) -> Result<Builder> {
    let fail = |reason: String| {
        let message = format!("saga definition {:?} is not valid: {reason}", document.id);
        Error::new(ErrorKind::InvalidDefinition, message)
    };
    let mut builder = Definition::builder(&document.id, &document.version).config(config);
    if let Some(limit) = document.timeout_ms {
        builder = builder.timeout(Duration::from_millis(limit));
    }
    if let Some(unwind) = document.unwind {
        builder = builder.unwind(unwind);
    }
    let mut known: HashMap<&str, Source> = HashMap::new();
    let mut last = None;
    for step in &document.steps {
        let draft = draft(step, &known, last, &builder)
            .map_err(|reason| fail(format!("step {:?}: {reason}", step.name)))?;
        let (source, _) = builder.push(draft);
        known.insert(&step.name, source);
        last = Some(source);
    }
    let text = serde_json::to_string(document).map_err(|source| unreadable(&source))?;
    Ok(builder.declared(text))
}

type Checked<T> = std::result::Result<T, String>;

fn draft(
    step: &StepDocument,
    known: &HashMap<&str, Source>,
    last: Option<Source>,
    builder: &Builder,
) -> Checked<Draft> {
    let mark = builder.mark();
    let after = match &step.after {
        Some(names) => names
            .iter()
            .map(|name| {
                let found = known.get(&**name).copied();
                found.ok_or_else(|| format!("it follows {name:?}, which does not come before it"))
            })
            .collect::<Checked<Vec<_>>>()?,
        None => last.into_iter().collect(),
    };
    let requests = Requests::of(step)?;
    let names = requests.names(known)?;
    let mut origins: Vec<_> = after.into_iter().map(|source| (source, mark)).collect();
    origins.extend(names.iter().map(|(_, source)| (*source, mark)));
    let roots: Vec<_> = names.iter().map(|(name, _)| Arc::clone(name)).collect();
    let edges = Edges {
        shape: match requests.action {
            Action::Request(_) => Shape::Named(names),
            Action::Sleep(_) | Action::Signal(..) => Shape::Nothing,
        },
        origins,
    };
    let named = |request: StepCall| Body::Request(request.named(roots.clone()));
    let body = match requests.action {
        Action::Request(request) => named(request),
        Action::Sleep(length) => Body::Timer(length),
        Action::Signal(name, limit) => Body::Signal(name, limit),
    };
    let mut draft = Draft::new(&step.name, edges, body, builder.defaults());
    draft.compensation = requests.compensation.map(&named);
    draft.probe = requests.probe.map(&named);
    draft.kind = match (step.kind, &draft.compensation) {
        (Some(kind), None) if kind != Kind::Compensatable => kind,
        (None, None) if matches!(draft.action, Body::Timer(_) | Body::Signal(..)) => Kind::ReadOnly,
        (None | Some(Kind::Compensatable), Some(_)) => Kind::Compensatable,
        (Some(kind), Some(_)) => return Err(format!("it is {kind:?} and has a compensation")),
        (None | Some(_), None) => {
            let kinds = "kind: pivot, retriable or read_only";
            return Err(format!("it has neither a compensation nor a {kinds}"));
        }
    };
    let reasons = step.non_retryable.iter();
    draft.non_retryable = reasons.map(|reason| Arc::from(&**reason)).collect();
    draft.save_point = step.save_point.unwrap_or_default();
    draft.is_commutative = step.commutative;
    let ms = |limit: Option<u64>| limit.map(Duration::from_millis);
    draft.effort.retry = retry(draft.effort.retry, step.retries, step.backoff.as_ref());
    draft.effort.attempt = ms(step.attempt_timeout_ms);
    if let Some(total) = ms(step.timeout_ms) {
        draft.effort.total = total;
    }
    if let Some(undo) = &step.compensation {
        draft.undo.retry = retry(draft.undo.retry, undo.retries, undo.backoff.as_ref());
        draft.undo.attempt = ms(undo.timeout_ms);
    }
    Ok(draft)
}

fn retry(default: Retry, retries: Option<u32>, backoff: Option<&BackoffDocument>) -> Retry {
    let retries = retries.unwrap_or_else(|| default.max_retries());
    match backoff {
        Some(backoff) => Retry::new(retries, backoff.backoff()),
        None => default.with_retries(retries),
    }
}

enum Action {
    Request(StepCall),
    Sleep(Duration),
    Signal(Arc<str>, Option<Duration>),
}

/// What a step does, as its document says.
struct Requests {
    action: Action,
    compensation: Option<StepCall>,
    probe: Option<StepCall>,
}

impl Requests {
    fn of(step: &StepDocument) -> Checked<Self> {
        let compensation = step.compensation.as_ref().map(RequestDocument::call);
        if step.probe.as_ref().is_some_and(RequestDocument::has_effort) {
            let message =
                "its probe has a timeout, retries or backoff: it goes by the compensation's";
            return Err(message.to_owned());
        }
        let probe = step.probe.as_ref().map(RequestDocument::call);
        Ok(Self {
            action: action(step)?,
            compensation: compensation.transpose()?,
            probe: probe.transpose()?,
        })
    }

    /// The names that templates use, and where their values come from.
    fn names(&self, known: &HashMap<&str, Source>) -> Checked<Vec<(Arc<str>, Source)>> {
        let mut roots = BTreeSet::new();
        if let Action::Request(request) = &self.action {
            roots.extend(request.roots()?);
        }
        for request in [&self.compensation, &self.probe].into_iter().flatten() {
            roots.extend(request.roots()?);
        }
        let mut names = Vec::new();
        for root in roots {
            let source = match &*root {
                "input" => Source::Input,
                "output" => continue,
                name => *known.get(name).ok_or_else(|| {
                    format!("a template names {name:?}, which is no step before it")
                })?,
            };
            names.push((Arc::from(root), source));
        }
        Ok(names)
    }
}

fn action(step: &StepDocument) -> Checked<Action> {
    let ms = Duration::from_millis;
    match (step.sleep_ms, &step.signal, &step.service) {
        (Some(length), None, None) => Ok(Action::Sleep(ms(length))),
        (None, Some(signal), None) => Ok(Action::Signal(
            Arc::from(&**signal),
            step.timeout_ms.map(ms),
        )),
        (None, None, Some(service)) => {
            let missing = |what: &str| format!("it calls service {service} without {what}");
            let method = step.method.as_ref().ok_or_else(|| missing("a method"))?;
            let endpoint = step
                .endpoint
                .as_ref()
                .ok_or_else(|| missing("an endpoint"))?;
            call(service, method, endpoint, step.parameters.as_ref()).map(Action::Request)
        }
        _ => Err("it has not exactly one of service, signal and sleep_ms".to_owned()),
    }
}

impl RequestDocument {
    const fn has_effort(&self) -> bool {
        self.timeout_ms.is_some() || self.retries.is_some() || self.backoff.is_some()
    }

    fn call(&self) -> Checked<StepCall> {
        let parameters = self.parameters.as_ref();
        call(&self.service, &self.method, &self.endpoint, parameters)
    }
}

fn call(
    service: &str,
    method: &str,
    endpoint: &str,
    parameters: Option<&Value>,
) -> Checked<StepCall> {
    let service = ServiceName::new(service).map_err(|source| format!("service: {source}"))?;
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_invalid| format!("method {method:?} is none of HTTP"))?;
    let call = StepCall::new(service, method, endpoint);
    Ok(match parameters {
        Some(parameters) => call.body(parameters.clone()),
        None => call.no_body(),
    })
}

impl Builder {
    /// Keeps the document that the definition is made of.
    fn declared(mut self, text: String) -> Self {
        self.document = Some(text.into());
        self
    }
}
