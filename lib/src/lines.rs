//! Where a line ends.
//!
//! memchr is faster on long texts, but asks the processor what it can when it is first called: seven CPUID instructions.
//! On a virtual machine each of them leaves the guest, 5 to 8 µs, so that together they take as long as all else that a
//! run with one event does between its system calls. Lines are short, and what every processor can is enough for them.
//!
//! # Invariants
//! - Pure.

/// So many bytes are looked at together; without an early exit the compiler makes few instructions of it.
const CHUNK: usize = 32;

/// The place of the first newline.
pub fn newline(bytes: &[u8]) -> Option<usize> {
    let (chunks, _) = bytes.as_chunks::<CHUNK>();
    let before = chunks.iter().take_while(|it| !holds_newline(it)).count() * CHUNK;
    bytes[before..].iter().position(|it| *it == b'\n').map(|it| before + it)
}

/// The place of the last newline.
pub fn last_newline(bytes: &[u8]) -> Option<usize> {
    let (_, chunks) = bytes.as_rchunks::<CHUNK>();
    let behind = chunks.iter().rev().take_while(|it| !holds_newline(it)).count() * CHUNK;
    bytes[..bytes.len() - behind].iter().rposition(|it| *it == b'\n')
}

fn holds_newline(chunk: &[u8; CHUNK]) -> bool {
    let is_newline = |it: &u8| *it == b'\n';
    chunk.iter().fold(false, |any, it| any | is_newline(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_newline_is_found_wherever_it_stands() {
        for length in 0..100 {
            let mut bytes = vec![b'x'; length];
            assert_eq!((newline(&bytes), last_newline(&bytes)), (None, None));
            for at in 0..length {
                bytes[at] = b'\n';
                assert_eq!((newline(&bytes), last_newline(&bytes)), (Some(at), Some(at)), "{length}");
                bytes[length - 1] = b'\n';
                assert_eq!((newline(&bytes), last_newline(&bytes)), (Some(at), Some(length - 1)), "{length}");
                bytes.fill(b'x');
            }
        }
    }
}
