//! Reading length-delimited exposures one after the other from a file that may
//! be torn at its end, or still growing.

use std::io::{self, Read};

use super::record::{Framed, unframe};
use crate::limits::EXPOSURE_SIZE_MAX;

/// Read at once.
const CHUNK_SIZE: usize = 256 * 1024;

/// How a run of messages ends, as far as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Behind a whole message.
    Clean,
    /// In the middle of one: torn, or still being written.
    Cut,
    /// In something that is no exposure; nothing behind it can be found.
    Broken,
}

/// The messages of one file.
#[derive(Debug)]
pub struct Messages<R> {
    input: R,
    buffer: Vec<u8>,
    /// Where the next message begins in the buffer.
    begin: usize,
    /// Bytes of whole messages given so far.
    whole_size: u64,
    /// Whole messages given so far.
    count: u64,
    end: End,
}

impl<R: Read> Messages<R> {
    /// Reads from the begin of `input`.
    pub fn new(input: R) -> Messages<R> {
        Messages {
            input,
            buffer: Vec::with_capacity(CHUNK_SIZE),
            begin: 0,
            whole_size: 0,
            count: 0,
            end: End::Clean,
        }
    }

    /// The next whole message, or `None` where the input ends or breaks. After
    /// `None` it may be called again: the input may have grown.
    ///
    /// # Errors
    /// If the input can't be read.
    pub fn next_message(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            match unframe(&self.buffer[self.begin..]) {
                Framed::Whole { message, size } => {
                    let from = self.begin + size - message.len();
                    self.begin += size;
                    self.whole_size += size as u64;
                    self.count += 1;
                    return Ok(Some(&self.buffer[from..self.begin]));
                }
                Framed::Broken => {
                    self.end = End::Broken;
                    return Ok(None);
                }
                Framed::Cut => {
                    if !self.fill()? {
                        self.end = if self.begin == self.buffer.len() { End::Clean } else { End::Cut };
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Skips to the end.
    ///
    /// # Errors
    /// If the input can't be read.
    pub fn skip_all(&mut self) -> io::Result<()> {
        while self.next_message()?.is_some() {}
        Ok(())
    }

    /// How the input ended when the last call gave `None`.
    pub fn end(&self) -> End {
        self.end
    }

    /// Bytes of the whole messages so far: where a torn file is cut.
    pub fn whole_size(&self) -> u64 {
        self.whole_size
    }

    /// Whole messages so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Reads on; false at the input's end. The buffer holds one message and one
    /// chunk at most: a message is bounded, so the buffer is.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.begin);
        self.begin = 0;
        debug_assert!(self.buffer.len() <= EXPOSURE_SIZE_MAX + 4);
        let size = (&mut self.input).take(CHUNK_SIZE as u64).read_to_end(&mut self.buffer)?;
        Ok(size > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Exposure, encode};
    use super::super::ring::ExposureId;
    use super::*;

    fn file(count: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut record = Vec::new();
        for seq in 0..count {
            let id = ExposureId { instance: 1, ring: 0, seq };
            let context = vec![b'x'; seq as usize * 7 % 5000];
            let exposure =
                Exposure { id, time_us: 1, version: "v", units: [], assignments: [], context: &context };
            encode(&mut record, exposure);
            bytes.extend_from_slice(&record);
        }
        bytes
    }

    #[test]
    fn every_message_of_a_long_file_is_given_once() {
        let bytes = file(500);
        let mut messages = Messages::new(bytes.as_slice());
        messages.skip_all().unwrap();
        assert_eq!(
            (messages.count(), messages.whole_size(), messages.end()),
            (500, bytes.len() as u64, End::Clean)
        );
    }

    #[test]
    fn a_torn_tail_ends_the_file_behind_its_last_whole_message() {
        let whole = file(9).len();
        let bytes = file(10);
        for size in whole + 1..bytes.len() {
            let mut messages = Messages::new(&bytes[..size]);
            messages.skip_all().unwrap();
            assert_eq!((messages.whole_size(), messages.end()), (whole as u64, End::Cut));
        }
        let mut zeros = file(9);
        zeros.extend([0; 100]);
        let mut messages = Messages::new(zeros.as_slice());
        messages.skip_all().unwrap();
        assert_eq!((messages.whole_size(), messages.end()), (whole as u64, End::Broken));
    }
}
