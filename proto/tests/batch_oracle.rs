//! The record batch codec against an independent one, both ways.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as oracle;
use plimsoll_proto::batch::{
    BatchBuilder, Compression, Limits, NewRecord, ProducerSequence, Sequence, records, stamp, verify,
};
use plimsoll_proto::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use proptest::prelude::*;

const CODECS: [(Compression, oracle::Compression); 5] = [
    (Compression::None, oracle::Compression::None),
    (Compression::Gzip, oracle::Compression::Gzip),
    (Compression::Snappy, oracle::Compression::Snappy),
    (Compression::Lz4, oracle::Compression::Lz4),
    (Compression::Zstd, oracle::Compression::Zstd),
];

#[derive(Clone, Debug)]
struct Plain {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp_ms: i64,
}

fn plain_records() -> impl Strategy<Value = Vec<Plain>> {
    let part = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200));
    // Keys of headers are unique: the oracle holds them in a map.
    let headers = proptest::collection::btree_map("[a-z]{0,8}", part(), 0..4);
    let record =
        (part(), part(), headers, 0i64..4_000_000_000_000).prop_map(|(key, value, headers, timestamp_ms)| {
            Plain { key, value, headers: headers.into_iter().collect(), timestamp_ms }
        });
    proptest::collection::vec(record, 1..20)
}

fn ours(plain: &[Plain], codec: Compression, base_offset: u64) -> BytesMut {
    let mut builder = BatchBuilder::new(codec);
    for record in plain {
        let headers: Vec<(&str, Option<&[u8]>)> =
            record.headers.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
        let new = NewRecord {
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
            timestamp_ms: record.timestamp_ms,
        };
        let before = builder.plain_bytes();
        builder.push(&new).unwrap();
        assert!(builder.plain_bytes() - before <= new.bytes_max());
    }
    builder.set_producer(Some(ProducerSequence {
        id: ProducerId(77),
        epoch: ProducerEpoch(2),
        base: Sequence::from_i32(40).unwrap(),
    }));
    let mut bytes = builder.build().unwrap();
    stamp(&mut bytes, Offset::new(base_offset).unwrap(), LeaderEpoch(9)).unwrap();
    bytes
}

fn theirs(plain: &[Plain], codec: oracle::Compression, base_offset: i64) -> Bytes {
    let records: Vec<oracle::Record> = plain
        .iter()
        .zip(0i64..)
        .map(|(record, i)| oracle::Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 9,
            producer_id: 77,
            producer_epoch: 2,
            timestamp_type: oracle::TimestampType::Creation,
            offset: base_offset + i,
            sequence: i32::try_from(40 + i).unwrap(),
            timestamp: record.timestamp_ms,
            key: record.key.clone().map(Bytes::from),
            value: record.value.clone().map(Bytes::from),
            headers: record
                .headers
                .iter()
                .map(|(k, v)| (StrBytes::from_string(k.clone()), v.clone().map(Bytes::from)))
                .collect::<IndexMap<_, _>>(),
        })
        .collect();
    let mut out = BytesMut::new();
    let options = oracle::RecordEncodeOptions { version: 2, compression: codec };
    oracle::RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
    out.freeze()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_oracle_reads_what_we_write(plain in plain_records(), base_offset in 0u64..1 << 40) {
        for (codec, _) in CODECS {
            let mut bytes = ours(&plain, codec, base_offset).freeze();
            let found = oracle::RecordBatchDecoder::decode_all(&mut bytes).unwrap();
            let found: Vec<oracle::Record> = found.into_iter().flat_map(|set| set.records).collect();
            prop_assert_eq!(found.len(), plain.len());
            for ((record, want), i) in found.iter().zip(&plain).zip(0i64..) {
                prop_assert_eq!(record.offset, i64::try_from(base_offset).unwrap() + i);
                prop_assert_eq!(record.partition_leader_epoch, 9);
                prop_assert_eq!((record.producer_id, record.producer_epoch), (77, 2));
                prop_assert_eq!(record.timestamp, want.timestamp_ms);
                prop_assert_eq!(record.key.as_deref(), want.key.as_deref());
                prop_assert_eq!(record.value.as_deref(), want.value.as_deref());
                prop_assert_eq!(record.headers.len(), want.headers.len());
                for ((k, v), (wk, wv)) in record.headers.iter().zip(&want.headers) {
                    prop_assert_eq!(k.as_str(), wk.as_str());
                    prop_assert_eq!(v.as_deref(), wv.as_deref());
                }
            }
        }
    }

    #[test]
    fn we_read_what_the_oracle_writes(plain in plain_records(), base_offset in 0i64..1 << 40) {
        for (_, codec) in CODECS {
            let bytes = theirs(&plain, codec, base_offset);
            let header = verify(&bytes, &Limits::CLIENT).unwrap();
            prop_assert_eq!(header.base_offset.to_i64(), base_offset);
            prop_assert_eq!(header.leader_epoch, Some(LeaderEpoch(9)));
            prop_assert_eq!(header.producer.unwrap().base.to_i32(), 40);
            let found: Vec<_> = records(&bytes, &Limits::CLIENT).unwrap().collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(found.len(), plain.len());
            for (record, want) in found.iter().zip(&plain) {
                prop_assert_eq!(record.timestamp_ms, want.timestamp_ms);
                prop_assert_eq!(record.key.as_deref(), want.key.as_deref());
                prop_assert_eq!(record.value.as_deref(), want.value.as_deref());
                let headers: Vec<_> = record.headers.iter().map(|h| (h.key.to_vec(), h.value.as_ref().map(|v| v.to_vec()))).collect();
                let wanted: Vec<_> = want.headers.iter().map(|(k, v)| (k.clone().into_bytes(), v.clone())).collect();
                prop_assert_eq!(headers, wanted);
            }
        }
    }

    #[test]
    fn uncompressed_batches_are_the_same_byte_for_byte(mut plain in plain_records(), base_offset in 0u64..1 << 40) {
        // The oracle's base timestamp is the least, Java's and ours is the first record's.
        plain.sort_by_key(|record| record.timestamp_ms);
        let mine = ours(&plain, Compression::None, base_offset);
        let other = theirs(&plain, oracle::Compression::None, i64::try_from(base_offset).unwrap());
        prop_assert_eq!(&mine[..], &other[..]);
    }
}
