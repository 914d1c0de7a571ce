//! Messages between the harness and a CUDA worker: a length of eight bytes, little-endian, then as many bytes. The worker
//! reads and writes them here, by streams that it trusts; the harness does by [`super::Process`], with limits.

use std::io::{self, Read, Write};

/// What stands before a message.
pub(super) const HEAD_BYTES: usize = 8;

/// What is sent before a message of `bytes` bytes.
pub(in crate::candidate) fn head(bytes: usize) -> [u8; HEAD_BYTES] {
    (bytes as u64).to_le_bytes()
}

/// The length that a head says.
pub(super) fn length(head: &[u8; HEAD_BYTES]) -> u64 {
    u64::from_le_bytes(*head)
}

pub(in crate::candidate) fn write(stream: &mut impl Write, message: &[u8]) -> io::Result<()> {
    stream.write_all(&head(message.len()))?;
    stream.write_all(message)?;
    stream.flush()
}

/// The next message; `None` at the end of the stream.
pub(in crate::candidate) fn read(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; HEAD_BYTES];
    match stream.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = length(&head);
    let mut message = Vec::new();
    let read = stream.take(length).read_to_end(&mut message)?;
    if read as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    #[test]
    fn messages_come_back_whole_and_broken_ones_do_not() {
        let mut stream = Vec::new();
        super::write(&mut stream, b"one").unwrap();
        super::write(&mut stream, b"").unwrap();
        let mut reader = stream.as_slice();
        assert_eq!(super::read(&mut reader).unwrap().unwrap(), b"one");
        assert_eq!(super::read(&mut reader).unwrap().unwrap(), b"");
        assert!(super::read(&mut reader).unwrap().is_none());
        assert!(super::read(&mut &stream[..9]).is_err());
        assert!(super::read(&mut [0xff; 12].as_slice()).is_err());
    }
}
