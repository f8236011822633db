//! W3C trace context, level 2 (<https://www.w3.org/TR/trace-context-2/>).
//!
//! A [`TraceContext`] is parsed from the headers `traceparent` and `tracestate` and written back for
//! each outgoing attempt with a span id of its own. An invalid `traceparent` starts a new trace and
//! drops the `tracestate`; an invalid `tracestate` is dropped alone. Higher versions are read by their
//! first four fields and written as version 00.

mod state;

pub use state::TraceState;

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;

/// Identifies a trace: 16 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(NonZeroU128);

/// Identifies a span within its trace: 8 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(NonZeroU64);

/// A header that is not a trace context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidTrace(pub(crate) &'static str);

impl fmt::Display for InvalidTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid trace context: {}", self.0)
    }
}

impl std::error::Error for InvalidTrace {}

macro_rules! id {
    ($name:ident, $number:ty, $nonzero:ty, $width:literal, $what:literal) => {
        impl $name {
            /// The id of this number, `None` for zero.
            pub const fn new(number: $number) -> Option<Self> {
                match <$nonzero>::new(number) {
                    Some(number) => Some(Self(number)),
                    None => None,
                }
            }

            /// The id of a random draw; zero, which is no id, becomes one.
            pub const fn from_draw(draw: $number) -> Self {
                match Self::new(draw) {
                    Some(id) => id,
                    None => Self(<$nonzero>::MIN),
                }
            }

            /// The id as a number.
            pub const fn as_number(self) -> $number {
                self.0.get()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", $width, "x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidTrace;

            fn from_str(text: &str) -> Result<Self, InvalidTrace> {
                if text.len() != $width || !is_lower_hex(text) {
                    return Err(InvalidTrace($what));
                }
                let number =
                    <$number>::from_str_radix(text, 16).map_err(|_error| InvalidTrace($what))?;
                Self::new(number).ok_or(InvalidTrace($what))
            }
        }
    };
}

id!(
    TraceId,
    u128,
    NonZeroU128,
    32,
    "a trace id is 32 lower-case hex digits, not all zero"
);
id!(
    SpanId,
    u64,
    NonZeroU64,
    16,
    "a span id is 16 lower-case hex digits, not all zero"
);

fn is_lower_hex(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The flags of a trace context; bits that no version defines are dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TraceFlags(u8);

impl TraceFlags {
    /// The trace is recorded.
    pub const SAMPLED: Self = Self(1);
    /// The right-most 7 bytes of the trace id are random.
    pub const RANDOM: Self = Self(2);

    /// The flags of this byte.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 3)
    }

    /// The flags as a byte.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether the trace is recorded.
    pub const fn is_sampled(self) -> bool {
        self.0 & Self::SAMPLED.0 != 0
    }

    /// Whether the right-most 7 bytes of the trace id are random.
    pub const fn is_random(self) -> bool {
        self.0 & Self::RANDOM.0 != 0
    }

    /// The same flags with the sampling decision replaced.
    #[must_use]
    pub const fn with_sampled(self, sampled: bool) -> Self {
        Self((self.0 & Self::RANDOM.0) | sampled as u8)
    }
}

/// The place of a call within a trace.
///
/// ```
/// use orchestra_core::{SpanId, TraceContext};
///
/// let incoming: TraceContext =
///     "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?;
/// assert!(incoming.flags().is_sampled());
/// let outgoing = incoming.child(SpanId::from_draw(7));
/// assert_eq!(
///     outgoing.to_string(),
///     "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01",
/// );
/// # Ok::<(), orchestra_core::InvalidTrace>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace: TraceId,
    span: SpanId,
    flags: TraceFlags,
    state: TraceState,
}

impl TraceContext {
    /// The root of a new trace whose id is random.
    pub fn root(trace: TraceId, span: SpanId, sampled: bool) -> Self {
        let flags = TraceFlags::RANDOM.with_sampled(sampled);
        Self {
            trace,
            span,
            flags,
            state: TraceState::default(),
        }
    }

    /// Reads the headers: exactly one `traceparent`, and the `tracestate` values in their order.
    pub fn from_headers<'a>(
        parent: &str,
        state: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, InvalidTrace> {
        let mut context: Self = parent.parse()?;
        context.state = TraceState::from_headers(state).unwrap_or_default();
        Ok(context)
    }

    /// The trace.
    pub fn trace_id(&self) -> TraceId {
        self.trace
    }

    /// The span that the next one is a child of.
    pub fn span_id(&self) -> SpanId {
        self.span
    }

    /// The flags.
    pub fn flags(&self) -> TraceFlags {
        self.flags
    }

    /// The vendors' members, for the header `tracestate`.
    pub fn state(&self) -> &TraceState {
        &self.state
    }

    /// The context of a span below this one.
    #[must_use]
    pub fn child(&self, span: SpanId) -> Self {
        Self {
            span,
            ..self.clone()
        }
    }
}

/// The header `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{}-{}-{:02x}",
            self.trace,
            self.span,
            self.flags.bits()
        )
    }
}

/// The header `traceparent` alone.
impl FromStr for TraceContext {
    type Err = InvalidTrace;

    fn from_str(text: &str) -> Result<Self, InvalidTrace> {
        const LEN: usize = 55;
        let text = text.trim_matches([' ', '\t']);
        let (head, tail) = text
            .split_at_checked(LEN)
            .ok_or(InvalidTrace("too short"))?;
        let mut fields = head.split('-');
        let (Some(version), Some(trace), Some(span), Some(flags), None) = (
            fields.next(),
            fields.next(),
            fields.next(),
            fields.next(),
            fields.next(),
        ) else {
            return Err(InvalidTrace("expected version-trace-span-flags"));
        };
        if version.len() != 2 || !is_lower_hex(version) || version == "ff" {
            return Err(InvalidTrace("unknown version"));
        }
        if !tail.is_empty() && (version == "00" || !tail.starts_with('-')) {
            return Err(InvalidTrace("text after the flags"));
        }
        if flags.len() != 2 || !is_lower_hex(flags) {
            return Err(InvalidTrace("flags are 2 lower-case hex digits"));
        }
        let flags = u8::from_str_radix(flags, 16).map_err(|_error| InvalidTrace("flags"))?;
        Ok(Self {
            trace: trace.parse()?,
            span: span.parse()?,
            flags: TraceFlags::from_bits(flags),
            state: TraceState::default(),
        })
    }
}
