//! Where the scanners put texts that do not stand in the request as they are.

/// A text as a scanner met it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Text<'a> {
    /// As it stands in the request.
    Plain(&'a str),
    /// Written to the front of the scratch, so many bytes.
    Written(usize),
}

/// What is left of the scratch. A text written to its front lasts until the
/// next is written, unless it is held.
pub(super) struct Scratch<'a>(pub(super) &'a mut [u8]);

impl<'a> Scratch<'a> {
    /// The text, until the scratch is used again.
    #[inline]
    pub(super) fn borrow<'s>(&'s self, text: Text<'a>) -> &'s str {
        match text {
            Text::Plain(plain) => plain,
            Text::Written(size) => written(&self.0[..size]),
        }
    }

    /// The text, to last: its part of the scratch is used up.
    #[inline]
    pub(super) fn hold(&mut self, text: Text<'a>) -> &'a str {
        match text {
            Text::Plain(plain) => plain,
            Text::Written(size) => {
                let (held, rest) = std::mem::take(&mut self.0).split_at_mut(size);
                self.0 = rest;
                written(held)
            }
        }
    }
}

fn written(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the scanners write UTF-8 only")
}
