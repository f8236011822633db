//! Random tests that can be repeated.

use std::fmt;

/// The seed of a test; says how to repeat the test when it fails.
///
/// Keep it alive for the whole test: dropped while the thread panics, it prints the variable and the
/// value that reproduce the run.
///
/// ```
/// use orchestra_testkit::Seed;
///
/// let seed = Seed::from_env_or_random("ORCHESTRA_SEED");
/// assert_eq!(seed.rng().u64(..), seed.rng().u64(..));
/// ```
#[derive(Debug)]
pub struct Seed {
    variable: &'static str,
    value: u64,
}

impl Seed {
    /// The value of the environment variable, or a random one.
    ///
    /// # Panics
    ///
    /// If the variable is set to anything but a number (decimal, or hexadecimal after `0x`): running
    /// with another seed than the one asked for would hide the failure that is being looked for.
    pub fn from_env_or_random(variable: &'static str) -> Self {
        let value = std::env::var_os(variable).map_or_else(
            || fastrand::u64(..),
            |text| parse(variable, &text.to_string_lossy()),
        );
        Self { variable, value }
    }

    /// A given seed, for the repetition of a known failure.
    pub const fn fixed(variable: &'static str, value: u64) -> Self {
        Self { variable, value }
    }

    /// The number.
    pub const fn value(&self) -> u64 {
        self.value
    }

    /// A generator that begins at this seed; two of them draw the same numbers.
    pub fn rng(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.value)
    }
}

#[expect(
    clippy::panic,
    reason = "a test must not run with another seed than asked for"
)]
fn parse(variable: &str, text: &str) -> u64 {
    let number = text.trim();
    let parsed = number
        .strip_prefix("0x")
        .map_or_else(|| number.parse(), |hex| u64::from_str_radix(hex, 16));
    parsed.unwrap_or_else(|error| panic!("{variable}={text:?} is not a seed: {error}"))
}

/// As it is put before a command: `ORCHESTRA_SEED=7`.
impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.variable, self.value)
    }
}

impl Drop for Seed {
    #[expect(
        clippy::print_stderr,
        reason = "the report of a failed test belongs beside its panic message"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat with {self}");
        }
    }
}
