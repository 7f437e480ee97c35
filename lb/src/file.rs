//! Files of limited size.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::FileTypeExt as _,
    path::Path,
};

fn too_large(limit: u64) -> String {
    format!("it is larger than {} KiB, the most that it may have", limit >> 10)
}

/// Why a file is not to be read by somebody who reads all of it, if so: it is larger than `limit` bytes, or has no end.
pub(crate) fn unfit(path: &Path, limit: u64) -> Option<String> {
    // Who reads it finds out why it cannot be.
    let metadata = fs::metadata(path).ok()?;
    let kind = metadata.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        return Some("it is a device".to_owned());
    }
    (metadata.len() > limit).then(|| too_large(limit))
}

/// The text of a file, or of a pipe.
///
/// # Errors
///
/// It cannot be read, or has more than `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    if File::open(path)?.take(limit + 1).read_to_string(&mut text)? as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, too_large(limit)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "12345678").unwrap();
        assert_eq!((read(&path, 8).unwrap().as_str(), unfit(&path, 8)), ("12345678", None));
        let error = read(&path, 7).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(unfit(&path, 7).is_some());
        File::create(&path).unwrap().set_len(10 << 30).unwrap();
        assert_eq!(
            unfit(&path, 1 << 20),
            Some("it is larger than 1024 KiB, the most that it may have".to_owned())
        );
        assert!(read(&path, 1 << 20).is_err());
        let zero = Path::new("/dev/zero");
        assert_eq!(unfit(zero, 1), Some("it is a device".to_owned()));
        assert!(read(zero, 1 << 20).is_err());
    }
}
