//! Large payloads are kept compressed: memory is what a Redis runs out of.
//!
//! LZ4, because a payload is compressed on the way to its acknowledgement and decompressed on the way to
//! its receiver. Measured on JSON of line items: 4 KiB become a third for some 6 µs, and 3 µs back; 1 KiB
//! becomes half, but costs a tenth of a delivery's processor time. Zstandard makes another 40 % smaller and
//! takes three to five times as long.

/// Smaller payloads, in bytes, are kept as they are.
pub(super) const THRESHOLD: usize = 4096;

/// A payload is kept compressed only if that saves this share of it, in percent.
const WORTH: usize = 20;

/// LZ4 cannot make more than this many bytes out of one, so a length beyond it is no length.
const MOST: usize = 255;

/// The payload compressed, with its length in front; `None` if it is better kept as it is.
pub(super) fn compress(payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() < THRESHOLD {
        return None;
    }
    let compressed = lz4_flex::block::compress_prepend_size(payload);
    let most = payload.len() / 100 * (100 - WORTH);
    (compressed.len() <= most).then_some(compressed)
}

/// The payload that was compressed; `None` if the bytes are damaged.
pub(super) fn decompress(compressed: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = lz4_flex::block::uncompressed_size(compressed).ok()?;
    if length > rest.len().saturating_mul(MOST) {
        return None;
    }
    lz4_flex::block::decompress(rest, length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_payloads_that_shrink_are_compressed_and_others_are_not() {
        let repeated = b"{\"id\":1,\"name\":\"x\"},".repeat(400);
        let compressed = compress(&repeated).unwrap();
        assert!(compressed.len() < repeated.len() / 2);
        assert_eq!(decompress(&compressed).unwrap(), repeated);
        assert!(compress(&repeated[..THRESHOLD - 1]).is_none());
        let mut state = 1_u32;
        let random: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .take(2 * THRESHOLD)
        .collect();
        assert!(compress(&random).is_none());
    }

    #[test]
    fn a_length_that_cannot_be_is_damage_and_takes_no_memory() {
        let mut bytes = compress(&vec![b'x'; 8192]).unwrap();
        bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(decompress(&bytes).is_none());
        assert!(decompress(b"").is_none());
        assert!(decompress(b"abc").is_none());
    }
}
