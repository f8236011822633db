use std::time::Duration;

use orchestra_core::{Timestamp, WallClock};
use orchestra_testkit::FollowingWallClock;

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test(start_paused = true)]
async fn it_follows_paused_time() {
    let start = Timestamp::UNIX_EPOCH + 10 * DAY;
    let clock = FollowingWallClock::starting_at(start);
    assert_eq!(clock.wall(), start);

    tokio::time::sleep(DAY).await;
    assert_eq!(clock.wall(), start + DAY);
}

#[tokio::test(start_paused = true)]
async fn it_steps_both_ways_and_goes_on_from_there() {
    let start = Timestamp::UNIX_EPOCH + 10 * DAY;
    let clock = FollowingWallClock::starting_at(start);
    let shown_elsewhere = clock.clone();

    clock.step_forward(3 * DAY);
    assert_eq!(shown_elsewhere.wall(), start + 3 * DAY);
    clock.step_back(5 * DAY);
    tokio::time::sleep(DAY).await;
    assert_eq!(shown_elsewhere.wall(), Timestamp::UNIX_EPOCH + 9 * DAY);
}

#[tokio::test(start_paused = true)]
async fn it_saturates_at_both_ends() {
    let clock = FollowingWallClock::starting_at(Timestamp::UNIX_EPOCH + DAY);
    clock.step_back(Duration::MAX);
    assert_eq!(clock.wall(), Timestamp::UNIX_EPOCH);

    let clock = FollowingWallClock::starting_at(Timestamp::from_unix_nanos(u64::MAX));
    clock.step_forward(Duration::MAX);
    assert_eq!(clock.wall(), Timestamp::from_unix_nanos(u64::MAX));
}
