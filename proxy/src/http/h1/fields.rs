//! Field lines as they came: one block of bytes and where names and values lie.
//!
//! Made by the head and trailer parsers, read by everyone. Nothing is copied
//! and nothing is normalised: order, case and spacing stay, so that the
//! encoder can pass whole runs of lines on in one piece.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::http::headers::{Name, members};

/// Part of a block. Blocks are far below 4 GiB.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Where `part`, borrowed from `block`, lies in it.
    pub(super) fn of(block: &[u8], part: &[u8]) -> Option<Self> {
        let start = part.as_ptr().addr().checked_sub(block.as_ptr().addr())?;
        let end = start.checked_add(part.len())?;
        block.get(start..end)?;
        Some(Self {
            start: u32::try_from(start).ok()?,
            end: u32::try_from(end).ok()?,
        })
    }

    pub(super) fn of_block(self, block: &[u8]) -> &[u8] {
        block
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name: Span,
    value: Span,
    class: Name,
}

/// What most heads need without a heap block of their own.
const INLINE: usize = 16;

/// The fields of a head or a trailer section, in order.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    /// Start line, field lines and the empty line at the end.
    block: Bytes,
    entries: SmallVec<[Entry; INLINE]>,
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) name: &'a [u8],
    /// Without the white space around it.
    pub(crate) value: &'a [u8],
    pub(crate) class: Name,
}

/// Room for httparse's tokens, on the stack.
pub(super) type Room<'a> = [MaybeUninit<httparse::Header<'a>>; super::MAX_FIELDS];

pub(super) const fn room<'a>() -> Room<'a> {
    [const { MaybeUninit::uninit() }; super::MAX_FIELDS]
}

/// Where the fields of a block lie.
pub(super) struct Entries(SmallVec<[Entry; INLINE]>);

impl Entries {
    /// `None` only if a token was not borrowed from `block`.
    pub(super) fn of(block: &[u8], tokens: &[httparse::Header<'_>]) -> Option<Self> {
        let mut entries = SmallVec::with_capacity(tokens.len());
        for token in tokens {
            entries.push(Entry {
                name: Span::of(block, token.name.as_bytes())?,
                value: Span::of(block, token.value)?,
                class: Name::of(token.name.as_bytes()),
            });
        }
        Some(Self(entries))
    }
}

/// What the encoder does with one field line.
pub(super) enum Line<'a> {
    Keep,
    Drop,
    /// The name as it came, with another value.
    Value(&'a [u8]),
}

impl Fields {
    pub(super) fn new(block: Bytes, entries: Entries) -> Self {
        Self {
            block,
            entries: entries.0,
        }
    }

    pub(super) fn part(&self, span: Span) -> &[u8] {
        span.of_block(&self.block)
    }

    /// Writes the start line if asked, and the field lines, but not the empty
    /// line at the end. Lines that stay are copied as they came, in as few pieces as possible.
    pub(super) fn write<'a>(
        &self,
        out: &mut BytesMut,
        start_line: bool,
        mut rewrite: impl FnMut(Field<'_>) -> Line<'a>,
    ) {
        let last = self.block.len().saturating_sub("\r\n".len());
        let first = self
            .entries
            .first()
            .map_or(last, |entry| entry.name.start as usize);
        let mut run = if start_line { 0 } else { first };
        let copy = |out: &mut BytesMut, start: usize, end: usize| {
            out.extend_from_slice(self.block.get(start..end).unwrap_or_default());
        };
        let starts = self.entries.iter().map(|entry| entry.name.start as usize);
        let ends = starts.skip(1).chain([last]);
        for ((entry, field), end) in self.entries.iter().zip(self.iter()).zip(ends) {
            match rewrite(field) {
                Line::Keep => continue,
                Line::Drop => copy(out, run, entry.name.start as usize),
                Line::Value(value) => {
                    copy(out, run, entry.name.end as usize);
                    out.extend_from_slice(b": ");
                    out.extend_from_slice(value);
                    out.extend_from_slice(b"\r\n");
                }
            }
            run = end;
        }
        copy(out, run, last);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.entries.iter().map(|entry| Field {
            name: entry.name.of_block(&self.block),
            value: entry.value.of_block(&self.block),
            class: entry.class,
        })
    }

    /// The values of a field, in order, whatever the case of its name.
    pub(crate) fn get_all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| field.value)
    }

    /// Is `token` a member of the list that `name` holds? Case does not count.
    pub(crate) fn contains_token(&self, name: &str, token: &str) -> bool {
        self.get_all(name)
            .flat_map(members)
            .any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
