//! The file that holds compiled code: what the compiler made, and behind it a checksum over it.
//!
//! The checksum finds truncation and decay, which is all that one can find which stands beside what it
//! is for. Who may write the file is a matter of the folder it is in.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};

use xxhash_rust::xxh3::Xxh3;

/// Marks the end of a whole file.
const MAGIC: &[u8; 8] = b"wasmhook";
/// The checksum, the length of the code, and the mark.
pub(crate) const TRAILER: usize = 16 + 8 + MAGIC.len();
/// Bytes read at once: few enough that the buffer is found in the processor's cache again, and is no new
/// memory for each file.
const CHUNK: usize = 32 << 10;

/// Write compiled code and its checksum, and see them onto the disk: it is run from there, and a page that
/// could not be written must not be found out when it is read again.
pub(crate) fn write(mut file: &File, code: &[u8]) -> io::Result<()> {
    let mut hasher = Xxh3::new();
    hasher.update(code);
    file.write_all(code)?;
    file.write_all(&hasher.digest128().to_le_bytes())?;
    file.write_all(&(code.len() as u64).to_le_bytes())?;
    file.write_all(MAGIC)?;
    file.sync_all()
}

/// Whether the file is as it was written: all of it, and nothing else.
pub(crate) fn is_whole(mut file: &File) -> io::Result<bool> {
    file.rewind()?;
    let Some(length) = file.metadata()?.len().checked_sub(TRAILER as u64) else {
        return Ok(false);
    };
    let mut hasher = Xxh3::new();
    let mut chunk = vec![0; CHUNK];
    let mut code = file.take(length);
    loop {
        let read = code.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        hasher.update(&chunk[..read]);
    }
    let mut trailer = [0; TRAILER];
    file.read_exact(&mut trailer)?;
    let mut expected = [0; TRAILER];
    expected[..16].copy_from_slice(&hasher.digest128().to_le_bytes());
    expected[16..24].copy_from_slice(&length.to_le_bytes());
    expected[24..].copy_from_slice(MAGIC);
    Ok(trailer == expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncation_decay_and_additions_are_found() {
        let code: Vec<u8> = (0..CHUNK + 1000).map(|n| n.to_le_bytes()[0]).collect();
        let whole = {
            let mut file = tempfile::tempfile().unwrap();
            write(&file, &code).unwrap();
            assert!(is_whole(&file).unwrap());
            let mut bytes = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut bytes).unwrap();
            bytes
        };
        let is_accepted = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            is_whole(&file).unwrap()
        };
        assert!(is_accepted(&whole));
        for length in [0, TRAILER - 1, TRAILER, whole.len() / 2, whole.len() - 1] {
            assert!(!is_accepted(&whole[..length]), "{length} bytes of it");
        }
        for at in [0, CHUNK, code.len(), whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(!is_accepted(&damaged), "a bit at {at}");
        }
        assert!(!is_accepted(&[&whole[..], b"more"].concat()));
    }
}
