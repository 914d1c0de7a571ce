//! Compiled kernels, kept on disk between runs.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A compiled kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cubin {
    /// The image that the driver loads.
    pub image: Vec<u8>,
    /// What the compiler said: registers, spills, shared memory, warnings.
    pub log: String,
}

impl Cubin {
    /// The line of the log that tells registers, spills and shared memory, without the names around it.
    pub fn resources(&self) -> String {
        let line = |part| self.log.lines().find(|line| line.contains(part)).unwrap_or_default();
        let used = line("Used ").split(" : ").last().unwrap_or_default();
        let spills = line("spill stores").split("frame, ").last().unwrap_or_default();
        format!("{}; {}", used.trim(), spills.trim())
    }
}

/// Kept between runs, in the user's cache folder.
pub(super) fn default_cache() -> Option<PathBuf> {
    let folder = std::env::home_dir()?.join(".cache/nsa-gpu");
    fs::create_dir_all(&folder).ok()?;
    Some(folder)
}

/// An entry: the digest of the rest, the log's length, the log, the image. Whatever does not fit its digest is absent.
pub(super) fn read_entry(path: &Path) -> Option<Cubin> {
    let bytes = fs::read(path).ok()?;
    let (digest, payload) = bytes.split_at_checked(32)?;
    if Sha256::digest(payload).as_slice() != digest {
        return None;
    }
    let (length, rest) = payload.split_at_checked(8)?;
    let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
    let (log, image) = rest.split_at_checked(length)?;
    Some(Cubin { image: image.to_vec(), log: String::from_utf8(log.to_vec()).ok()? })
}

/// Written beside its place and renamed, so that no reader sees half of it.
pub(super) fn write_entry(path: &Path, cubin: &Cubin) -> std::io::Result<()> {
    let mut payload = (cubin.log.len() as u64).to_le_bytes().to_vec();
    payload.extend_from_slice(cubin.log.as_bytes());
    payload.extend_from_slice(&cubin.image);
    let folder = path.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&Sha256::digest(&payload))?;
    file.write_all(&payload)?;
    file.persist(path).map(|_| ()).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_cache_entry_is_absent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("entry");
        let cubin = Cubin { image: vec![1, 2, 3], log: "Used 8 registers".to_owned() };
        write_entry(&path, &cubin).unwrap();
        assert_eq!(read_entry(&path), Some(cubin));
        let bytes = fs::read(&path).unwrap();
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert_eq!(read_entry(&path), None, "byte {position}");
        }
        fs::write(&path, &bytes[..20]).unwrap();
        assert_eq!(read_entry(&path), None);
    }
}
