use proptest::prelude::*;

use super::*;
use crate::instance::Incarnation;

fn services(count: u64) -> Services {
    let made = (0..count).map(|index| {
        let instance = Instance::new(
            "orders".parse().unwrap(),
            format!("orders-{index}").parse().unwrap(),
            Incarnation::new(index),
            "10.0.0.1:80".parse().unwrap(),
        );
        Arc::new(instance)
    });
    let parts = vec![(Arc::from("registry"), made.collect())];
    vec![("orders".parse().unwrap(), parts)]
}

const MAX: u64 = 1 << 20;

#[test]
fn what_is_written_is_read_again_with_the_lines_that_were_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache");
    let kept = Lines::from([("idle".parse().unwrap(), Arc::from("[]"))]);
    write(&path, &services(3), kept, MAX).unwrap();
    let lines = read(&path, MAX, 10).unwrap();
    let mut names: Vec<_> = lines.keys().map(ServiceName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["idle", "orders"]);
    let orders: Vec<Part> = serde_json::from_str(&lines["orders"]).unwrap();
    assert_eq!(orders, services(3)[0].1);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert_eq!(read(&path, MAX, 1).unwrap().len(), 1);
}

#[test]
fn file_that_is_too_large_is_neither_written_nor_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache");
    write(&path, &services(3), Lines::new(), MAX).unwrap();
    let before = fs::read(&path).unwrap();
    assert!(write(&path, &services(300), Lines::new(), 1_000).is_err());
    assert_eq!(fs::read(&path).unwrap(), before);
    let length = before.len() as u64;
    assert_eq!(read(&path, length, 10).unwrap().len(), 1);
    assert!(read(&path, length - 1, 10).is_err());
    assert!(read(directory.path(), MAX, 10).is_err());
}

proptest! {
    #[test]
    fn torn_or_altered_file_is_ignored(cut in 0_usize..400, flip in any::<bool>(), bit in 0..8_u8) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        write(&path, &services(3), Lines::new(), MAX).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        prop_assume!(cut < bytes.len());
        if flip {
            bytes[cut] ^= 1 << bit;
        } else {
            bytes.truncate(cut);
        }
        fs::write(&path, &bytes).unwrap();
        prop_assert!(read(&path, MAX, 10).is_err());
    }
}
