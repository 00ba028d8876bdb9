//! Arbitrary and damaged bytes never panic a decoder, and every flipped bit under the CRC is noticed.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use bytes::{Bytes, BytesMut};
use plimsoll_proto::batch::{
    BatchBuilder, BatchError, BatchHeader, Compression, HEADER_BYTES, Limits, NewRecord, first_batch,
    iter_batches, records, stamp, verify,
};
use plimsoll_proto::ids::{LeaderEpoch, Offset};
use proptest::prelude::*;

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn good(codec: Compression, count: u32) -> BytesMut {
    let mut builder = BatchBuilder::new(codec);
    for i in 0..count {
        let value = format!("value number {i} {}", "abc".repeat(i as usize % 50));
        let headers: [(&str, Option<&[u8]>); 1] = [("h", Some(b"x"))];
        let record = NewRecord {
            key: Some(b"k"),
            value: Some(value.as_bytes()),
            headers: &headers,
            timestamp_ms: i64::from(i),
        };
        builder.push(&record).unwrap();
    }
    builder.build().unwrap()
}

/// Puts the CRC right, so that damage reaches the code behind it.
fn seal(bytes: &mut [u8]) {
    if bytes.len() > HEADER_BYTES {
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
}

fn exercise(bytes: &[u8]) {
    let limits = Limits { plain_bytes_max: 4 << 20, ..Limits::CLIENT };
    let _ = BatchHeader::parse(bytes);
    let _ = first_batch(bytes);
    let _ = verify(bytes, &limits);
    let _ = verify(bytes, &Limits::REPLICA);
    let shared = Bytes::copy_from_slice(bytes);
    if let Ok(records) = records(&shared, &limits) {
        let _ = records.count();
    }
    let _ = iter_batches(&shared).count();
    let _ = stamp(&mut bytes.to_vec(), Offset::MAX, LeaderEpoch(u32::MAX));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        exercise(&bytes);
    }

    #[test]
    fn damaged_batches_with_a_crc_that_fits(
        codec in 0usize..5,
        count in 1u32..30,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = good(CODECS[codec], count);
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            let keep = cut.index(bytes.len());
            bytes.truncate(keep);
        }
        exercise(&bytes);
        seal(&mut bytes);
        exercise(&bytes);
    }

    #[test]
    fn a_flipped_bit_under_the_crc_is_noticed(codec in 0usize..5, at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = good(CODECS[codec], 10);
        let at = 17 + at.index(bytes.len() - 17);
        bytes[at] ^= 1 << bit;
        prop_assert!(verify(&bytes, &Limits::CLIENT).is_err());
    }
}

#[test]
fn each_rule_of_verify_has_its_error() {
    let edit = |at: usize, value: &[u8]| {
        let mut bytes = good(Compression::None, 3);
        bytes[at..at + value.len()].copy_from_slice(value);
        seal(&mut bytes);
        verify(&bytes, &Limits::CLIENT)
    };
    assert!(edit(0, &[]).is_ok());
    assert!(matches!(edit(0, &[0x80]), Err(BatchError::Header { field: "base_offset", .. })));
    assert!(matches!(edit(8, &[0; 4]), Err(BatchError::Length { length: 0 })));
    assert!(matches!(edit(8, &[0x7f, 0xff, 0xff, 0xff]), Err(BatchError::TooLarge { .. })));
    assert!(matches!(edit(16, &[1]), Err(BatchError::Magic { magic: 1 })));
    assert!(matches!(edit(22, &[0x08]), Err(BatchError::Header { field: "attributes", .. })));
    assert!(matches!(edit(22, &[0x10]), Err(BatchError::Header { field: "attributes", .. })));
    assert!(matches!(edit(22, &[0x20]), Err(BatchError::Header { field: "attributes", .. })));
    assert!(matches!(edit(22, &[0x07]), Err(BatchError::Header { field: "attributes", .. })));
    assert!(matches!(edit(26, &[3]), Err(BatchError::Header { field: "last_offset_delta", .. })));
    assert!(matches!(edit(57, &[0, 0, 0, 0]), Err(BatchError::Header { field: "record_count", .. })));
    assert!(matches!(edit(57, &[0xff]), Err(BatchError::Header { field: "record_count", .. })));
    let mut more = good(Compression::None, 3);
    more[26] = 200;
    more[60] = 201;
    seal(&mut more);
    assert!(matches!(
        verify(&more, &Limits::CLIENT),
        Err(BatchError::Header { .. } | BatchError::Record { .. })
    ));
    let mut long = good(Compression::None, 3);
    long.extend_from_slice(b"x");
    assert_eq!(verify(&long, &Limits::CLIENT), Err(BatchError::TrailingBytes { extra: 1 }));
    assert!(BatchBuilder::new(Compression::None).build().is_err());
}

#[test]
fn decompression_bombs_are_bounded() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut builder = BatchBuilder::new(codec);
        let zeros = vec![0u8; 8 << 20];
        builder.push(&NewRecord { value: Some(&zeros), ..NewRecord::default() }).unwrap();
        let bytes = builder.build().unwrap();
        let limits = Limits { plain_bytes_max: 1 << 20, ..Limits::CLIENT };
        let found = verify(&bytes, &limits);
        assert!(matches!(found, Err(BatchError::TooLarge { .. })), "{codec:?}: {found:?}");
        let ratio = Limits { ratio_max: 10, ..Limits::CLIENT };
        if bytes.len() < 700_000 {
            assert!(matches!(verify(&bytes, &ratio), Err(BatchError::TooLarge { .. })), "{codec:?}");
        }
    }
}

#[test]
fn raw_snappy_is_read_too() {
    let plain = good(Compression::None, 5);
    let packed = snap::raw::Encoder::new().compress_vec(&plain[HEADER_BYTES..]).unwrap();
    let mut bytes = plain[..HEADER_BYTES].to_vec();
    bytes.extend_from_slice(&packed);
    let length = i32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[22] = 2;
    seal(&mut bytes);
    assert_eq!(verify(&bytes, &Limits::CLIENT).unwrap().record_count, 5);
}
