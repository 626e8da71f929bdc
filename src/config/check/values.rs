//! The values of a JSON text whose grammar was judged. One look over the whole finds
//! where lists and objects end, so that what a value holds is found without reading
//! what lies deeper: however a file is nested, each byte is read a few times.

use memchr::memchr2;

use crate::limits::JSON_DEPTH_MAX;

/// A list or an object.
#[derive(Debug)]
pub(super) struct Container {
    /// One past its last byte, from the text's start.
    end: u32,
    /// The first container that begins behind its end.
    next: u32,
}

/// A value as it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'s> {
    pub text: &'s str,
    /// Bytes from the text's start.
    pub offset: usize,
    /// Of a list or an object: which; of others: the next.
    container: usize,
}

/// Lists and objects of a text in the order they begin, but for those nested so
/// deep that nobody looks into what they lie in.
pub(super) fn containers(text: &str) -> Vec<Container> {
    let bytes = text.as_bytes();
    let mut containers: Vec<Container> = Vec::new();
    let mut open = [0; JSON_DEPTH_MAX + 1];
    let (mut depth, mut at) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = text_end(bytes, at) - 1,
            b'[' | b'{' => {
                if let Some(open) = open.get_mut(depth) {
                    *open = containers.len();
                    containers.push(Container { end: 0, next: 0 });
                }
                depth += 1;
            }
            b']' | b'}' => {
                depth -= 1;
                if let Some(open) = open.get(depth) {
                    containers[*open] = Container { end: at as u32 + 1, next: containers.len() as u32 };
                }
            }
            _ => {}
        }
        at += 1;
    }
    note_read(bytes.len());
    containers
}

/// One past the text that begins here.
fn text_end(bytes: &[u8], begin: usize) -> usize {
    let mut at = begin + 1;
    while let Some(found) = memchr2(b'"', b'\\', &bytes[at..]) {
        at += found + 1;
        if bytes[at - 1] == b'"' {
            return at;
        }
        // What is escaped ends nothing.
        at += 1;
    }
    unreachable!("the grammar was judged: every text ends")
}

impl<'s> Value<'s> {
    /// The value that the whole text is, with white space around it.
    pub fn whole(text: &'s str) -> Value<'s> {
        let offset = text.len() - text.trim_ascii_start().len();
        Value { text: text.trim_ascii(), offset, container: 0 }
    }

    /// What a list holds, or an object: there keys and values by turns.
    pub fn inner<'c>(self, containers: &'c [Container]) -> Inner<'s, 'c> {
        Inner { containers, of: self, at: 1, next: self.container + 1 }
    }
}

/// See [`Value::inner`].
pub(super) struct Inner<'s, 'c> {
    containers: &'c [Container],
    of: Value<'s>,
    /// Bytes of it that were passed.
    at: usize,
    /// The next container in it.
    next: usize,
}

impl<'s> Iterator for Inner<'s, '_> {
    type Item = Value<'s>;

    fn next(&mut self) -> Option<Value<'s>> {
        let bytes = self.of.text.as_bytes();
        let is_between = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b':');
        let begin = self.at + bytes[self.at..].iter().position(|byte| !is_between(byte))?;
        let container = self.next;
        let end = match bytes[begin] {
            b']' | b'}' => return None,
            b'"' => text_end(bytes, begin),
            b'[' | b'{' => {
                let Container { end, next } = self.containers[container];
                self.next = next as usize;
                end as usize - self.of.offset
            }
            _ => {
                let is_end = |byte: &u8| is_between(byte) || matches!(byte, b']' | b'}');
                begin + bytes[begin..].iter().position(is_end)?
            }
        };
        note_read(if self.next == container { end - self.at } else { begin + 1 - self.at });
        self.at = end;
        Some(Value { text: &self.of.text[begin..end], offset: self.of.offset + begin, container })
    }
}

#[cfg(test)]
thread_local! {
    /// Bytes that this thread has read in files.
    pub(super) static READ_SIZE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// For the test that counts how often a file is read.
fn note_read(_size: usize) {
    #[cfg(test)]
    READ_SIZE.set(READ_SIZE.get() + _size);
}
