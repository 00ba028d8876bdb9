//! Zigzag variable-length integers as in Protocol Buffers, which the records are made of.

use bytes::{BufMut, BytesMut};

/// Appends a signed integer of at most 64 bits.
pub(super) fn put(out: &mut BytesMut, value: i64) {
    let mut rest = (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned();
    while rest >= 0x80 {
        out.put_u8(low_seven_bits(rest) | 0x80);
        rest >>= 7;
    }
    out.put_u8(low_seven_bits(rest));
}

/// Bytes that [`put`] appends.
pub(super) fn len(value: i64) -> usize {
    let zigzag = (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned();
    let bits = 64 - (zigzag | 1).leading_zeros();
    usize::try_from(bits.div_ceil(7)).expect("at most ten bytes")
}

/// Takes a signed 64-bit integer from the front of `bytes`; `None` when cut off or longer than 10 bytes.
pub(super) fn take(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * i);
        if byte & 0x80 == 0 {
            *bytes = &bytes[i + 1..];
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

fn low_seven_bits(value: u64) -> u8 {
    u8::try_from(value & 0x7f).expect("seven bits fit into a byte")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_way_there_and_back() {
        for value in [0, -1, 1, 63, 64, -64, -65, 300, i64::from(i32::MIN), i64::MAX, i64::MIN] {
            let mut out = BytesMut::new();
            put(&mut out, value);
            assert_eq!(out.len(), len(value), "{value}");
            let mut rest = &out[..];
            assert_eq!(take(&mut rest), Some(value));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn refuses_what_is_cut_off_or_too_long() {
        for bad in [
            &[][..],
            &[0x80],
            &[0xff; 9],
            &[0xff; 11],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2],
        ] {
            assert_eq!(take(&mut { bad }), None, "{bad:?}");
        }
    }
}
