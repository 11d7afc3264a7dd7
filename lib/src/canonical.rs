//! stub
use serde_json::Value;
pub fn write(value: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(serde_json::to_string(value).unwrap_or_default().as_bytes())
}
pub fn write_string(t: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(serde_json::to_string(t).unwrap_or_default().as_bytes())
}
pub fn to_vec(value: &Value) -> Vec<u8> {
    let mut v = Vec::new();
    write(value, &mut v);
    v
}
