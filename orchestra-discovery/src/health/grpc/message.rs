//! The two messages of the protocol, in the wire format of protobuf and the framing of gRPC.

use bytes::{BufMut, Bytes, BytesMut};

/// What a health service says of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    Serves,
    ServesNot,
    ServiceUnknown,
    /// `UNKNOWN`, or a value that is not defined.
    Other,
}

/// `HealthCheckRequest { string service = 1 }`, uncompressed.
pub(super) fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len());
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    // A service name has at most a KiB.
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}

fn put_varint(into: &mut BytesMut, mut value: usize) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return into.put_u8(low);
        }
        into.put_u8(low | 0x80);
    }
}

/// `HealthCheckResponse { ServingStatus status = 1 }`; `None` if it is not one.
pub(super) fn serving(body: &[u8]) -> Option<Said> {
    let (&[compressed, a, b, c, d], message) = body.split_first_chunk::<5>()?;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    if compressed != 0 || message.len() != length {
        return None;
    }
    let status = status(message)?;
    Some(match status {
        1 => Said::Serves,
        2 => Said::ServesNot,
        3 => Said::ServiceUnknown,
        _ => Said::Other,
    })
}

/// Field 1; the last one counts, and other fields are passed over, as protobuf has it.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            (0, _) => return None,
            (1, 0) => status = take_varint(&mut message)?,
            (_, 0) => drop(take_varint(&mut message)?),
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_as_protobuf_has_them() {
        assert_eq!(request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(request("a.B")[..], *b"\0\0\0\0\x05\x0a\x03a.B");
        let long = request(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        // The default, zero, is not on the wire.
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Some(Said::Other));
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Some(Said::Serves));
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 2]), Some(Said::ServesNot));
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 3]), Some(Said::ServiceUnknown));
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 9]), Some(Said::Other));
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        let message = [
            0x10, 0xff, 0x01, // a varint
            0x19, 1, 2, 3, 4, 5, 6, 7, 8, // 64 bits
            0x22, 2, 8, 2, // two bytes
            8, 1, // the status
            0x2d, 1, 2, 3, 4, // 32 bits
        ];
        let mut body = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
        body.extend(message);
        assert_eq!(serving(&body), Some(Said::Serves));
    }

    #[test]
    fn what_is_cut_off_compressed_or_no_message_is_refused() {
        let bodies: [&[u8]; 9] = [
            b"",
            b"\0\0\0\0",
            b"\0\0\0\0\x02\x08",
            b"\0\0\0\0\x01\x08\x01",
            b"\x01\0\0\0\x02\x08\x01",
            b"\0\0\0\0\x01\x08",
            b"\0\0\0\0\x02\x12\x05",
            b"\0\0\0\0\x0c\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\0\0\0\0\x02\x0b\x01",
        ];
        for body in bodies {
            assert_eq!(serving(body), None, "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_breaks_it(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut framed = vec![0, 0, 0, 0, u8::try_from(body.len()).unwrap()];
            framed.extend(&body);
            serving(&framed);
            serving(&body);
        }
    }
}
