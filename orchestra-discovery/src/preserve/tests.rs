use proptest::prelude::*;

use super::*;

const WINDOW: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Monotonic {
    Monotonic::ZERO + Duration::from_secs(seconds)
}

fn lapsed(count: u32, now: Monotonic) -> Preservation<u32> {
    let mut leases = Preservation::new(Config::default());
    for key in 0..count {
        leases.lapse(key, now);
    }
    leases
}

#[test]
fn holds_from_three_of_ten_and_only_above_fifteen_percent() {
    // (lapsed, still listed, held)
    let cases = [
        (3, 7, true),
        (2, 8, false),
        (3, 6, false),
        (9, 0, false),
        (10, 0, true),
        (3, 17, false), // exactly 15 %
        (3, 16, true),
        (15, 85, false),
        (16, 84, true),
        (0, 10, false),
    ];
    for (count, live, held) in cases {
        let entered = lapsed(count, at(0)).judge(live, at(0));
        let expected = held.then_some(Transition::Entered {
            held: usize::try_from(count).unwrap(),
        });
        assert_eq!(entered, expected, "{count} lapsed, {live} live");
    }
}

#[test]
fn lapses_further_apart_than_the_window_do_not_add_up() {
    let mut leases = lapsed(2, at(0));
    leases.lapse(2, at(60));
    assert_eq!(leases.judge(8, at(60)), None);
    assert!(!leases.remembers(&0));
    leases.lapse(3, at(100));
    leases.lapse(4, at(119));
    assert!(leases.judge(8, at(119)).is_some());
}

#[test]
fn ends_when_enough_are_back_and_releases_the_rest() {
    let mut leases = lapsed(10, at(0));
    leases.judge(10, at(0));
    for key in 0..7 {
        leases.settle(&key);
    }
    // Three of twenty: exactly 15 %, but they may be on their way.
    assert_eq!(leases.judge(17, at(59)), None);
    let left = leases.judge(17, at(60));
    let released = vec![7, 8, 9];
    let end = End::Recovered;
    assert_eq!(left, Some(Transition::Left { end, released }));
    assert!(!leases.is_holding() && !leases.remembers(&7));
}

#[test]
fn ends_at_once_when_all_are_back() {
    let mut leases = lapsed(10, at(0));
    leases.judge(10, at(0));
    for key in 0..10 {
        assert_eq!(leases.judge(10, at(1)), None);
        leases.settle(&key);
    }
    let (end, released) = (End::Recovered, vec![]);
    let left = leases.judge(20, at(1));
    assert_eq!(left, Some(Transition::Left { end, released }));
}

#[test]
fn ends_when_the_source_has_confirmed_in_five_windows() {
    let mut leases = lapsed(10, at(0));
    leases.judge(0, at(0));
    for second in 1..300 {
        leases.confirm(at(second));
        assert_eq!(leases.judge(0, at(second)), None, "at second {second}");
    }
    leases.confirm(at(300));
    let left = leases.judge(0, at(300)).unwrap();
    assert!(
        matches!(left, Transition::Left { end: End::Confirmed, released } if released.len() == 10)
    );
}

#[test]
fn never_lasts_longer_than_the_longest_hold() {
    let mut leases = lapsed(10, at(0));
    leases.judge(0, at(0));
    // New lapses do not prolong it.
    leases.lapse(10, at(899));
    assert_eq!(leases.judge(0, at(899)), None);
    let left = leases.judge(0, at(900)).unwrap();
    assert!(
        matches!(left, Transition::Left { end: End::TimedOut, released } if released.len() == 11)
    );
}

#[derive(Debug, Clone)]
enum Act {
    Lapse(u8),
    Settle(u8),
    Confirm,
    Judge(usize),
}

/// All of history, looked at anew each time.
#[derive(Default)]
struct Model {
    lapses: Vec<(u8, Monotonic)>,
    held: Option<(Monotonic, Vec<Monotonic>)>,
}

impl Model {
    fn judge(&mut self, live: usize, now: Monotonic) -> Option<Transition<u8>> {
        if self.held.is_none() {
            self.lapses.retain(|(_, at)| now < *at + WINDOW);
        }
        let mut keys: Vec<u8> = self.lapses.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        let (count, leases) = (keys.len(), keys.len() + live);
        let mass = count >= 3 && leases >= 10 && count as f64 / leases as f64 > 0.15;
        match &self.held {
            None if mass => {
                self.held = Some((now, Vec::new()));
                Some(Transition::Entered { held: count })
            }
            None => None,
            Some((since, confirmed)) => {
                let end = match () {
                    () if count == 0 || !mass && now >= *since + WINDOW => End::Recovered,
                    () if confirmed.len() >= 5 => End::Confirmed,
                    () if now >= *since + Duration::from_secs(900) => End::TimedOut,
                    () => return None,
                };
                self.held = None;
                self.lapses.clear();
                Some(Transition::Left {
                    end,
                    released: keys,
                })
            }
        }
    }
}

fn acts() -> impl Strategy<Value = Vec<(u64, Act)>> {
    let act = prop_oneof![
        6 => (0..40_u8).prop_map(Act::Lapse),
        2 => (0..40_u8).prop_map(Act::Settle),
        2 => Just(Act::Confirm),
        4 => (0..60_usize).prop_map(Act::Judge),
    ];
    prop::collection::vec((0..50_u64, act), 0..200)
}

proptest! {
    #[test]
    fn agrees_with_a_model_that_looks_at_all_of_history(acts in acts()) {
        let mut leases = Preservation::new(Config::default());
        let mut model = Model::default();
        let mut now = Monotonic::ZERO;
        for (pause, act) in acts {
            now = now + Duration::from_secs(pause);
            match act {
                Act::Lapse(key) => {
                    leases.lapse(key, now);
                    model.lapses.retain(|(held, _)| *held != key);
                    model.lapses.push((key, now));
                }
                Act::Settle(key) => {
                    leases.settle(&key);
                    model.lapses.retain(|(held, _)| *held != key);
                }
                Act::Confirm => {
                    leases.confirm(now);
                    if let Some((since, confirmed)) = &mut model.held
                        && now >= *confirmed.last().unwrap_or(since) + WINDOW
                    {
                        confirmed.push(now);
                    }
                }
                Act::Judge(live) => prop_assert_eq!(leases.judge(live, now), model.judge(live, now)),
            }
            prop_assert_eq!(leases.is_holding(), model.held.is_some());
        }
    }
}
