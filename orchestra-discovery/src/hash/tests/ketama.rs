use proptest::prelude::*;

use super::super::ketama::of;
use super::{Ketama, Named, histories, lists, nodes};

fn ketama(list: &Named) -> Ketama {
    Ketama::build(&nodes(list)).unwrap()
}

/// CRC-32 bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    let mut rest = u32::MAX;
    for byte in bytes {
        rest ^= u32::from(*byte);
        for _ in 0..8 {
            rest = (rest >> 1) ^ (if rest & 1 == 1 { 0xedb8_8320 } else { 0 });
        }
    }
    !rest
}

/// The points of `host:port`s as nginx makes them, those at one place in the order of the servers.
fn points_of_nginx(list: &Named) -> Vec<(u32, usize)> {
    let mut points = Vec::new();
    for (position, (server, weight)) in list.iter().enumerate() {
        let (host, port) = server.rsplit_once(':').unwrap();
        let mut previous = [0; 4];
        for _ in 0..weight * 160 {
            let text = [host.as_bytes(), b"\0", port.as_bytes(), &previous].concat();
            let point = crc(&text);
            points.push((point, position));
            previous = point.to_le_bytes();
        }
    }
    points.sort_by_key(|point| point.0);
    points
}

#[test]
fn answers_are_those_of_nginx() {
    let servers = [
        ("127.0.0.1:1", 1),
        ("127.0.0.2:1", 2),
        ("127.0.0.3:7", 1),
        ("[::1]:9", 3),
        ("127.0.0.4:11", 5),
    ];
    let list: Named = servers
        .map(|(server, weight)| (server.to_owned(), weight))
        .to_vec();
    let table = ketama(&list);
    let answers = (0..40).map(|n| table.lookup(of(format!("key-{n}").as_bytes())).unwrap());
    // What nginx 1.22.1 put into `$upstream_addr`.
    let expected = [
        3, 4, 3, 3, 2, 1, 4, 4, 4, 3, 4, 3, 1, 4, 4, 4, 3, 4, 1, 4, 0, 3, 4, 4, 4, 1, 1, 1, 4, 3,
        4, 4, 4, 4, 4, 1, 0, 3, 4, 4,
    ];
    assert_eq!(answers.collect::<Vec<_>>(), expected);
}

#[test]
fn hosts_without_port_and_sockets_are_split_as_in_nginx() {
    let points = |server: &str| {
        ketama(&vec![(server.to_owned(), 1)])
            .points()
            .collect::<Vec<_>>()
    };
    let first = |text: &[u8]| crc(&[text, &[0; 4]].concat());
    let has = |server, text| points(server).iter().any(|point| point.0 == first(text));
    assert!(has("10.0.0.1:80", b"10.0.0.1\x0080"));
    assert!(has("cache", b"cache\0"));
    assert!(has("unix:/run/a:7", b"/run/a:7\0"));
    assert!(has("UNIX:/run/a", b"/run/a\0"));
    assert!(has("host:name", b"host:name\0"));
    assert!(has("host:", b"host\0"));
    assert!(has("", b"\0"));
}

#[test]
fn the_second_of_two_nodes_with_one_key_is_for_retries() {
    let list: Named = ["a:1", "b:1", "a:1"]
        .map(|key| (key.to_owned(), 1))
        .to_vec();
    let table = ketama(&list);
    for hash in super::hashes() {
        let hash = (hash >> 32) as u32;
        let mut order: Vec<usize> = table.walk(hash).collect();
        assert_ne!(order[0], 2);
        assert_eq!(
            order.iter().position(|&node| node == 2),
            order.iter().position(|&node| node == 0).map(|at| at + 1)
        );
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn table_is_that_of_nginx(list in lists(8, 0..4_u32)) {
        let table = ketama(&list);
        let points = points_of_nginx(&list);
        prop_assert!(table.points().eq(points.iter().copied()));
        let places = points.iter().flat_map(|point| [point.0, point.0.wrapping_add(1)]);
        for hash in places.chain([0, u32::MAX]) {
            let at = points.partition_point(|point| point.0 < hash);
            let first = points.get(at).or_else(|| points.first());
            prop_assert_eq!(table.lookup(hash), first.map(|point| point.1));
        }
    }

    #[test]
    fn updated_table_is_the_one_built(history in histories(8, 0..3_u32)) {
        let mut updated = ketama(&history[0]);
        for list in &history {
            updated = updated.update(&nodes(list)).unwrap();
            prop_assert!(updated.points().eq(ketama(list).points()), "{:?}", list);
        }
    }
}
