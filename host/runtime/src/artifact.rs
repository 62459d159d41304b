//! The file that holds compiled code, or what else was put into the cache: what the compiler made, and behind
//! it a checksum over it.
//!
//! The checksum finds truncation and decay, which is all that one can find which stands beside what it
//! is for. Who may write the file is a matter of the folder it is in.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Marks the end of a whole file.
const MAGIC: &[u8; 8] = b"wasmhook";
/// The checksum, the length of the code, and the mark.
pub(crate) const TRAILER: usize = 16 + 8 + MAGIC.len();
/// Bytes read at once: few enough that the buffer is found in the processor's cache again, and is no new
/// memory for each file.
const CHUNK: usize = 32 << 10;

/// Write compiled code and its checksum, and see them onto the disk: it is run from there, and a page that
/// could not be written must not be found out when it is read again.
pub(crate) fn write(file: &File, code: &[u8]) -> io::Result<()> {
    put(file, code)?;
    file.sync_all()
}

/// Write bytes and their checksum, behind what is in the file.
pub(crate) fn put(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.write_all(&trailer(xxh3_128(bytes), bytes.len() as u64))
}

/// Where what was put last into a file begins.
pub(crate) fn last(mut file: &File) -> io::Result<u64> {
    let unfit = || io::Error::from(io::ErrorKind::InvalidData);
    let all = file.metadata()?.len();
    let end = all.checked_sub(TRAILER as u64).ok_or_else(unfit)?;
    file.seek(SeekFrom::Start(end + 16))?;
    let (mut length, mut mark) = ([0; 8], [0; MAGIC.len()]);
    file.read_exact(&mut length)?;
    file.read_exact(&mut mark)?;
    let begin = end.checked_sub(u64::from_le_bytes(length));
    begin.filter(|_| mark == *MAGIC).ok_or_else(unfit)
}

/// What was put into a file that has been read, if it is as it was written: all of it, and nothing else.
pub(crate) fn content(mut whole: Vec<u8>) -> Option<Vec<u8>> {
    let length = whole.len().checked_sub(TRAILER)?;
    let (content, found) = whole.split_at(length);
    let is_whole = found == trailer(xxh3_128(content), length as u64);
    whole.truncate(length);
    is_whole.then_some(whole)
}

/// What stands behind bytes with this checksum and of this length.
fn trailer(checksum: u128, length: u64) -> [u8; TRAILER] {
    let mut trailer = [0; TRAILER];
    trailer[..16].copy_from_slice(&checksum.to_le_bytes());
    trailer[16..24].copy_from_slice(&length.to_le_bytes());
    trailer[24..].copy_from_slice(MAGIC);
    trailer
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
    let mut found = [0; TRAILER];
    file.read_exact(&mut found)?;
    Ok(found == trailer(hasher.digest128(), length))
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
            let is_whole = is_whole(&file).unwrap();
            assert_eq!(content(bytes.to_vec()).is_some(), is_whole);
            is_whole
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
    #[test]
    fn what_was_put_last_is_found_and_can_be_taken_off() {
        let file = tempfile::tempfile().unwrap();
        write(&file, b"code").unwrap();
        let whole = file.metadata().unwrap().len();
        assert_eq!(last(&file).unwrap(), 0);
        for last_part in [&b"more"[..], b""] {
            file.set_len(whole).unwrap();
            (&file).seek(SeekFrom::End(0)).unwrap();
            put(&file, last_part).unwrap();
            assert_eq!(last(&file).unwrap(), whole);
        }
        assert!(!is_whole(&file).unwrap());
        file.set_len(whole).unwrap();
        assert!(is_whole(&file).unwrap());
        for length in [0, TRAILER as u64 - 1, whole - 1] {
            file.set_len(length).unwrap();
            assert!(last(&file).is_err(), "{length} bytes of it");
        }
    }
}
