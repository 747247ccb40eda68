//! `Event` messages in Protocol Buffers, and the TFRecord frame around each: length, masked CRC-32C of the length, message,
//! masked CRC-32C of the message.

/// What says that a file holds events.
const VERSION: &str = "brain.Event:2";

/// The first event of a file.
pub fn version(time_ms: u64) -> Vec<u8> {
    let mut event = head(time_ms, 0);
    bytes(3, VERSION.as_bytes(), &mut event);
    event
}

/// One value of a curve.
pub fn scalar(time_ms: u64, step: u64, tag: &str, value: f64) -> Vec<u8> {
    let mut entry = Vec::new();
    bytes(1, tag.as_bytes(), &mut entry);
    key(2, 5, &mut entry);
    entry.extend((value as f32).to_le_bytes());
    summary(time_ms, step, &entry)
}

/// A text for the dashboard of texts, as `SummaryWriter.add_text` writes it.
pub fn text(time_ms: u64, tag: &str, text: &str) -> Vec<u8> {
    let mut plugin = Vec::new();
    bytes(1, b"text", &mut plugin);
    let mut content = Vec::new();
    varint_field(1, 0, &mut content);
    bytes(2, &content, &mut plugin);
    let mut metadata = Vec::new();
    bytes(1, &plugin, &mut metadata);

    let mut dimension = Vec::new();
    varint_field(1, 1, &mut dimension);
    let mut shape = Vec::new();
    bytes(2, &dimension, &mut shape);
    let mut tensor = Vec::new();
    varint_field(1, 7, &mut tensor);
    bytes(2, &shape, &mut tensor);
    bytes(8, text.as_bytes(), &mut tensor);

    let mut entry = Vec::new();
    bytes(1, format!("{tag}/text_summary").as_bytes(), &mut entry);
    bytes(8, &tensor, &mut entry);
    bytes(9, &metadata, &mut entry);
    summary(time_ms, 0, &entry)
}

fn summary(time_ms: u64, step: u64, entry: &[u8]) -> Vec<u8> {
    let mut value = Vec::new();
    bytes(1, entry, &mut value);
    let mut event = head(time_ms, step);
    bytes(5, &value, &mut event);
    event
}

fn head(time_ms: u64, step: u64) -> Vec<u8> {
    let mut event = Vec::new();
    key(1, 1, &mut event);
    event.extend((time_ms as f64 / 1000.0).to_le_bytes());
    varint_field(2, step, &mut event);
    event
}

/// A message in its frame.
pub fn frame(event: &[u8], out: &mut Vec<u8>) {
    let length = (event.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(event);
    out.extend(masked(event).to_le_bytes());
}

fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

fn key(field: u64, wire_type: u64, out: &mut Vec<u8>) {
    varint(field << 3 | wire_type, out);
}

fn varint_field(field: u64, value: u64, out: &mut Vec<u8>) {
    key(field, 0, out);
    varint(value, out);
}

fn bytes(field: u64, value: &[u8], out: &mut Vec<u8>) {
    key(field, 2, out);
    varint(value.len() as u64, out);
    out.extend(value);
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
