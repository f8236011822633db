//! What happens next, drawn from a seed.

use std::time::Duration;

use orchestra_discovery::{Override, Status};

use super::link::Mood;
use super::millis;
use super::uplink::Line;
use super::ward::Condition;

/// The processes that there may be.
pub(super) const PROCESSES: u8 = 14;

/// A source of the client's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feed {
    Registry,
    Dns,
    Fallback,
}

#[derive(Debug, Clone)]
pub(super) enum Act {
    Start(u8, u32),
    /// Gives its lease back.
    Stop(u8),
    Crash(u8),
    /// Crashes and is there again at once.
    Restart(u8, u32),
    /// A second process of the same id, while the first goes on.
    Twin(u8),
    Drain(u8, Duration),
    Status(u8, Status),
    Override(u8, Option<Override>),
    Line(u8, Line),
    /// The line of every process.
    Lines(Line),
    Mood(Feed, Mood),
    Reset(Feed),
    Keep,
    Lag,
    /// The registry forgets all; its wall clock may have stepped.
    RestartRegistry,
    /// The registry's process was frozen for so long.
    Freeze(Duration),
    /// Steps the registry's wall clock, in milliseconds.
    Wall(i64),
    Dns(u8, bool),
    Condition(u8, Condition),
    Shut(u8, bool),
    /// The gates of all.
    Gates(bool),
    Calls(u32),
    AbortCalls,
    /// Asks the cache for the members.
    Ask,
    /// Asks it for a service that there is not.
    Lookup(u8),
    /// Many changes, some milliseconds apart.
    Churn(Vec<(u8, Self)>),
    Nothing,
}

fn weight(rng: &mut fastrand::Rng) -> u32 {
    [0, 1, 1, 1, 5][rng.usize(..5)]
}

fn line(rng: &mut fastrand::Rng) -> Line {
    match rng.u8(..8) {
        0..3 => Line::Up,
        3 => Line::Refusing,
        4 => Line::Hanging,
        5 => [Line::Deaf, Line::Lossy][rng.usize(..2)],
        _ => Line::Late(millis(rng.u64(1_000..3_000))),
    }
}

fn mood(rng: &mut fastrand::Rng) -> Mood {
    use Mood::{Blank, Hanging, Mute, Refusing, Up};
    [Up, Up, Up, Refusing, Hanging, Blank, Mute][rng.usize(..7)]
}

fn feed(rng: &mut fastrand::Rng) -> Feed {
    use Feed::{Dns, Fallback, Registry};
    [Registry, Registry, Dns, Fallback][rng.usize(..4)]
}

fn condition(rng: &mut fastrand::Rng) -> Condition {
    use Condition::{Critical, Failing, Hanging, Limping, Treacherous, Well};
    let conditions = [
        Well,
        Well,
        Well,
        Well,
        Limping,
        Failing,
        Critical,
        Hanging,
        Treacherous,
    ];
    conditions[rng.usize(..conditions.len())]
}

fn forced(rng: &mut fastrand::Rng) -> Option<Override> {
    match rng.u8(..4) {
        0 => Some(Override::OutOfService),
        1 => Some(Override::ForcedHealthy),
        _ => None,
    }
}

impl Act {
    pub(super) fn draw(rng: &mut fastrand::Rng, most: u8) -> Self {
        let n = rng.u8(1..=most);
        match rng.u8(..100) {
            0..14 if most == PROCESSES || rng.bool() => Self::Start(n, weight(rng)),
            14..16 => Self::Stop(n),
            16..19 => Self::Crash(n),
            19..22 => Self::Restart(n, weight(rng)),
            22 => Self::Twin(n),
            23..25 => Self::Drain(n, millis(rng.u64(..6_000))),
            25..28 => Self::Status(n, [Status::Draining, Status::Ready][rng.usize(..2)]),
            28..31 => Self::Override(n, forced(rng)),
            31..35 => Self::Line(n, line(rng)),
            35 => Self::Lines(line(rng)),
            36..38 => Self::Lines(Line::Up),
            38..44 => Self::Mood(feed(rng), mood(rng)),
            44..46 => Self::Mood(Feed::Registry, Mood::Up),
            46 => Self::Reset(feed(rng)),
            47 => Self::Keep,
            48 => Self::Lag,
            49 if rng.u8(..3) == 0 => Self::RestartRegistry,
            50..52 => Self::Freeze(millis(rng.u64(3_500..6_500))),
            52 => Self::Wall(rng.i64(-7_200_000..7_200_000)),
            53..55 => Self::Dns(n, rng.bool()),
            55..61 => Self::Condition(n, condition(rng)),
            61 => Self::Shut(n, rng.bool()),
            62 => Self::Gates(rng.u8(..3) == 0),
            63 => Self::Calls(rng.u32(100..200)),
            64..86 => Self::Calls(rng.u32(1..30)),
            86 => Self::AbortCalls,
            87 => Self::Lookup(rng.u8(..)),
            88..90 => Self::Ask,
            90..93 => Self::churn(rng, most),
            93 => Self::waver(n, rng),
            _ => Self::Nothing,
        }
    }

    /// Drains and takes it back, while not every answer arrives.
    fn waver(n: u8, rng: &mut fastrand::Rng) -> Self {
        let acts = [
            Self::Line(n, Line::Lossy),
            Self::Status(n, Status::Draining),
            Self::Status(n, Status::Ready),
        ];
        let acts = acts.map(|act| (rng.u8(..12), act));
        Self::Churn(acts.into())
    }

    fn churn(rng: &mut fastrand::Rng, most: u8) -> Self {
        let n = rng.u8(1..=most);
        let one = |rng: &mut fastrand::Rng| {
            let n = if rng.bool() { n } else { rng.u8(1..=most) };
            let act = match rng.u8(..6) {
                0 => Self::Restart(n, weight(rng)),
                1 => Self::Status(n, [Status::Draining, Status::Ready][rng.usize(..2)]),
                2 => Self::Stop(n),
                3 => Self::Start(n, weight(rng)),
                _ => Self::Override(n, forced(rng)),
            };
            (rng.u8(..12), act)
        };
        let mut acts: Vec<_> = (0..24).map(|_| one(rng)).collect();
        if rng.u8(..3) == 0 {
            // In the middle of a merge window.
            let cut = [Mood::Refusing, Mood::Hanging][rng.usize(..2)];
            acts.push((0, Self::Mood(Feed::Registry, cut)));
        }
        Self::Churn(acts)
    }
}
