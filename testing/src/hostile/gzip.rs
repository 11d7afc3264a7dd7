//! Compressed bodies, made by hand: one honest, one a bomb.

const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// So many bytes that become about 150 times as many: one byte, then matches of 258 at distance 1, which are 13 bits each in the fixed code.
pub fn bomb(bytes: usize) -> Vec<u8> {
    let mut bits: Vec<bool> = Vec::new();
    // The last block, fixed codes; the byte 0 is the code 00110000.
    bits.extend([true, true, false, false, false, true, true, false, false, false, false]);
    while bits.len() < bytes * 8 {
        // Length 258 is the code 11000101, distance 1 the code 00000.
        bits.extend([true, true, false, false, false, true, false, true, false, false, false, false, false]);
    }
    bits.extend([false; 7]);
    let packed = bits.chunks(8).map(|it| it.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit)));
    HEADER.into_iter().chain(packed).chain([0; 8]).collect()
}

/// Gzip without compressing.
pub fn stored(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    let mut gzip = HEADER.to_vec();
    gzip.push(1);
    gzip.extend(length.to_le_bytes());
    gzip.extend((!length).to_le_bytes());
    gzip.extend(bytes);
    gzip.extend((!crc).to_le_bytes());
    gzip.extend(u32::from(length).to_le_bytes());
    gzip
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    use super::*;

    fn gunzip(bytes: &[u8]) -> Vec<u8> {
        let mut child = Command::new("gzip")
            .args(["-dc"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        child.wait_with_output().unwrap().stdout
    }

    #[test]
    fn what_claims_to_be_gzip_is() {
        assert_eq!(gunzip(&stored(b"{\"ok\":true}")), b"{\"ok\":true}");
        assert!(gunzip(&bomb(1000)).len() > 100_000);
    }
}
