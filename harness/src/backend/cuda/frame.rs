//! Messages between the harness and its worker: a length of eight bytes, little-endian, then as many bytes.

use std::io::{self, Read, Write};

/// No message is longer: a longer length is not one of ours.
const BYTES_MAX: u64 = 64 << 30;

pub(super) fn write(stream: &mut impl Write, message: &[u8]) -> io::Result<()> {
    stream.write_all(&(message.len() as u64).to_le_bytes())?;
    stream.write_all(message)?;
    stream.flush()
}

/// The next message; `None` at the end of the stream.
pub(super) fn read(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 8];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u64::from_le_bytes(length);
    if length > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
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
