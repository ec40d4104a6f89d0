//! TensorBoard event files of a run: each model's curves, and its figures on the test split.
//!
//! A file is a sequence of records: length (u64), its checksum, the bytes of an `Event`, their checksum. Numbers are
//! little-endian. Checksums are CRC-32C, rotated and shifted so that a checksum of a checksum is none. An `Event` is a
//! Protocol Buffers message with a time, a step, and a summary of named numbers. No more is needed, so this module uses
//! no library, which would bring a compiler of messages along. See `tensorflow/core/util/event.proto` and
//! <https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details>.
//!
//! Times are the stages' own, spread over their epochs, so that the same run gives the same bytes.

use serde_json::Value;
use stage::files::write_bytes;
use stage::{Error, Result};
use std::path::Path;

use crate::run::{History, RunData};

/// Writes the curves of every model of the run in `root` to its own folder in `into`; returns the number of models.
pub(crate) fn write(root: &Path, into: &Path) -> Result<usize> {
    let data = RunData::read(root)?;
    for history in &data.histories {
        let file = into.join(&history.model).join(format!("events.out.tfevents.{}.dsom", data.name));
        write_bytes(&file, &file_of(&data, history))?;
    }
    match data.histories.len() {
        0 => {
            let error = Error::missing("no model has a log to write").at(root);
            Err(error.hint("train teachers or a student first"))
        }
        count => Ok(count),
    }
}

fn file_of(data: &RunData, history: &History) -> Vec<u8> {
    let finished = unix_seconds(&history.finished);
    let took: f64 = history.curve("seconds").iter().map(|(_, seconds)| seconds).sum();
    let mut time = finished - took;
    let mut file = record(&event(time, 0.0, None));
    for epoch in &history.epochs {
        time += epoch.figure("seconds").unwrap_or_default();
        let mut values = Vec::new();
        for name in history.figures() {
            values.extend(epoch.figure(name).map(|value| (format!("epoch/{name}"), value)));
        }
        let strategies = history.strategies().into_iter();
        values.extend(strategies.map(|name| (format!("strategy/{name}"), epoch.share(&name))));
        file.extend(record(&event(time, epoch.number, Some(&values))));
    }
    let figures = figures(data, &history.model);
    if !figures.is_empty() {
        let step = history.best_epoch.unwrap_or_default();
        file.extend(record(&event(finished, step, Some(&figures))));
    }
    file
}

/// The model's figures by split, at the epoch that was kept.
fn figures(data: &RunData, model: &str) -> Vec<(String, f64)> {
    let mut figures = Vec::new();
    for (split, metrics) in data.models.iter().filter(|(name, _)| name == model).flat_map(|(_, of)| of) {
        if let Ok(Value::Object(named)) = serde_json::to_value(&metrics.both.realistic) {
            figures
                .extend(named.iter().filter_map(|(name, x)| Some((format!("{split}/{name}"), x.as_f64()?))));
        }
    }
    figures
}

/// The seconds since 1970 of an RFC 3339 time; 0 for any other text.
fn unix_seconds(time: &str) -> f64 {
    chrono::DateTime::parse_from_rfc3339(time).map_or(0.0, |time| time.timestamp_millis() as f64 / 1e3)
}

/// The bytes of a `tensorflow.Event` with named numbers; the first event of a file has the format instead.
fn event(time: f64, step: f64, values: Option<&[(String, f64)]>) -> Vec<u8> {
    let mut message = Vec::new();
    key(&mut message, 1, FIXED_64);
    message.extend(time.to_le_bytes());
    key(&mut message, 2, VARINT);
    varint(&mut message, step as u64);
    let Some(values) = values else {
        field(&mut message, 3, b"brain.Event:2");
        return message;
    };
    let mut summary = Vec::new();
    for (tag, value) in values {
        let mut entry = Vec::new();
        field(&mut entry, 1, tag.as_bytes());
        key(&mut entry, 2, FIXED_32);
        entry.extend((*value as f32).to_le_bytes());
        field(&mut summary, 1, &entry);
    }
    field(&mut message, 5, &summary);
    message
}

/// Wire types of protobuf fields.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

fn key(into: &mut Vec<u8>, field: u64, kind: u64) {
    varint(into, field << 3 | kind);
}

fn field(into: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    key(into, number, LENGTH);
    varint(into, bytes.len() as u64);
    into.extend(bytes);
}

/// Writes a number in groups of seven bits, lowest first.
fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length), message, &checksum(message)].concat()
}

/// The masked CRC-32C of some bytes.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_seven_bits_a_byte() {
        for (value, expected) in [(0, &[0][..]), (127, &[127]), (300, &[0xac, 0x02])] {
            let mut bytes = Vec::new();
            varint(&mut bytes, value);
            assert_eq!(bytes, expected, "{value}");
        }
    }

    #[test]
    fn the_first_record_is_as_tensorboard_writes_it() {
        // RecordWriter of tensorboard.summary.writer wrote Event(wall_time=1.5, file_version="brain.Event:2").
        let event = event(1.5, 0.0, None);
        assert_eq!(event, b"\x09\0\0\0\0\0\0\xf8\x3f\x10\0\x1a\x0dbrain.Event:2");
        let file = record(&event);
        assert_eq!(file[..8], (event.len() as u64).to_le_bytes());
        assert_eq!(file.len(), 8 + 4 + event.len() + 4);
        // CRC-32C of "123456789" is 0xe3069283 (RFC 3720, appendix B.4 has others).
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn times_are_read() {
        assert_eq!(unix_seconds("1970-01-01T00:01:00.5Z"), 60.5);
        assert_eq!(unix_seconds("yesterday"), 0.0);
    }
}
