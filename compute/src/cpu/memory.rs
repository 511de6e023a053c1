//! Memory of tensors on the processors, and some that was freed and waits to be used again.
//!
//! Memory that the system gives anew costs a page fault for every four kilobytes, which is more than most operations take to fill it. So
//! large pieces are kept when they are freed, up to a limit, and given to the next tensor of the same size: with the old content, as
//! [`crate::backend::Backend::allocate`] says. What is kept does not count as used, and makes room for what is.

use crate::backend::Fault;
use crate::memory::{Buffer, Lease, View};
use crate::tensor::Element;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Smaller pieces come from the allocator's own stock.
const KEPT_FROM_BYTES: usize = 64 << 10;
/// Pieces that are looked through for one of the right size.
const KEPT_PIECES_MAX: usize = 64;
/// A line of the cache: vectors that begin with one never lie in two.
const LINE_BYTES: usize = 64;
const WORD_BYTES: usize = 8;

/// Elements from the beginning of a cache line on, in words, so that all types are aligned.
#[derive(Default)]
struct Words {
    all: Box<[u64]>,
    start: usize,
}

impl Words {
    /// Zeros; the system makes most of them when they are touched. `None` if there is no memory.
    fn new(length: usize) -> Option<Self> {
        let all: Box<[u64]> =
            bytemuck::allocation::try_zeroed_slice_box(length + LINE_BYTES / WORD_BYTES).ok()?;
        let start = all.as_ptr().align_offset(LINE_BYTES);
        Some(Self { all, start })
    }

    fn length(&self) -> usize {
        self.all.len().saturating_sub(LINE_BYTES / WORD_BYTES)
    }

    fn bytes(&self) -> usize {
        self.length() * WORD_BYTES
    }

    fn of<T: Element>(&self) -> &[T] {
        bytemuck::cast_slice(&self.all[self.start..][..self.length()])
    }

    fn of_mut<T: Element>(&mut self) -> &mut [T] {
        let length = self.length();
        bytemuck::cast_slice_mut(&mut self.all[self.start..][..length])
    }
}

/// Pieces that were freed, the oldest first.
pub struct Kept {
    pieces: Mutex<VecDeque<Words>>,
    bytes_max: usize,
}

impl Kept {
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { pieces: Mutex::default(), bytes_max })
    }

    /// Memory for so many bytes, with any content; `None` if there is none.
    pub fn allocate(self: &Arc<Self>, bytes: usize, lease: Lease) -> Option<Buffer> {
        let length = bytes.div_ceil(WORD_BYTES);
        let taken = self.take(length);
        // What is used and what is kept are never more than the limit together: a piece that is freed only goes from one to the other.
        self.keep_at_most(usize::try_from(lease.room()).unwrap_or(usize::MAX));
        let words = taken.or_else(|| Words::new(length)).or_else(|| {
            self.pieces().clear();
            Words::new(length)
        })?;
        Some(Buffer::new(Memory { words: RwLock::new(words), kept: Arc::clone(self) }, lease))
    }

    /// The piece of this length that was freed last: it may be in the cache yet.
    fn take(&self, length: usize) -> Option<Words> {
        if length * WORD_BYTES < KEPT_FROM_BYTES {
            return None;
        }
        let mut pieces = self.pieces();
        let found = pieces.iter().rposition(|piece| piece.length() == length)?;
        pieces.remove(found)
    }

    fn put(&self, words: Words) {
        if (KEPT_FROM_BYTES..=self.bytes_max).contains(&words.bytes()) {
            self.pieces().push_back(words);
            self.keep_at_most(self.bytes_max);
        }
    }

    fn keep_at_most(&self, bytes_max: usize) {
        let mut pieces = self.pieces();
        while pieces.len() > KEPT_PIECES_MAX || pieces.iter().map(Words::bytes).sum::<usize>() > bytes_max {
            pieces.pop_front();
        }
    }

    fn pieces(&self) -> std::sync::MutexGuard<'_, VecDeque<Words>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory of a tensor.
struct Memory {
    words: RwLock<Words>,
    kept: Arc<Kept>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        let words = self.words.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.kept.put(std::mem::take(words));
    }
}

/// Elements that are read.
pub struct Elements<'buffer>(RwLockReadGuard<'buffer, Words>);

/// Elements that are written.
pub struct ElementsMut<'buffer>(RwLockWriteGuard<'buffer, Words>);

pub fn read(view: &View) -> Elements<'_> {
    read_buffer(&view.buffer)
}

pub fn write(view: &View) -> ElementsMut<'_> {
    write_buffer(&view.buffer)
}

pub fn read_buffer(buffer: &Buffer) -> Elements<'_> {
    // A panic elsewhere leaves numbers that nobody is shown: its caller gets no tensor.
    Elements(buffer.memory::<Memory>().words.read().unwrap_or_else(PoisonError::into_inner))
}

pub fn write_buffer(buffer: &Buffer) -> ElementsMut<'_> {
    ElementsMut(buffer.memory::<Memory>().words.write().unwrap_or_else(PoisonError::into_inner))
}

/// Says that an index was outside.
pub fn set(fault: &Fault) {
    write_buffer(&fault.buffer).all::<i32>()[fault.word] = 1;
}

/// What a broken device does to a result.
#[cfg(test)]
pub fn flip_a_bit(view: &View) {
    let mut elements = write(view);
    let words = elements.all::<i32>();
    let middle = view.of.shape.elements() / 2;
    words[middle] ^= 1 << 23;
}

impl Elements<'_> {
    /// All elements of the buffer.
    pub fn all<T: Element>(&self) -> &[T] {
        self.0.of()
    }

    /// The elements of a tensor that lies row after row from the beginning.
    pub fn of<T: Element>(&self, view: &View) -> &[T] {
        &self.all()[..view.of.shape.elements()]
    }
}

impl ElementsMut<'_> {
    pub fn all<T: Element>(&mut self) -> &mut [T] {
        self.0.of_mut()
    }

    pub fn of<T: Element>(&mut self, view: &View) -> &mut [T] {
        &mut self.all()[..view.of.shape.elements()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Meter;

    fn lease() -> Lease {
        Meter::new(u64::MAX).lease(0).expect("there is room")
    }

    fn kept_bytes(kept: &Kept) -> Vec<usize> {
        kept.pieces().iter().map(|piece| piece.length() * WORD_BYTES).collect()
    }

    #[test]
    fn a_large_piece_that_was_freed_is_used_again_by_a_tensor_of_its_size_only() {
        let kept = Kept::new(4 * KEPT_FROM_BYTES);
        let buffer = kept.allocate(KEPT_FROM_BYTES, lease()).expect("there is memory");
        write_buffer(&buffer).all::<i32>()[7] = 42;
        drop(buffer);
        let other = kept.allocate(KEPT_FROM_BYTES + WORD_BYTES, lease()).expect("there is memory");
        assert_eq!(read_buffer(&other).all::<i32>()[7], 0, "memory of another size is new");
        let again = kept.allocate(KEPT_FROM_BYTES, lease()).expect("there is memory");
        assert_eq!(read_buffer(&again).all::<i32>()[7], 42);
        assert!(kept_bytes(&kept).is_empty());
    }

    #[test]
    fn no_more_is_kept_than_the_limit_and_the_oldest_goes_first() {
        let kept = Kept::new(4 * KEPT_FROM_BYTES);
        for pieces in [1, 2, 3, 5] {
            drop(kept.allocate(pieces * KEPT_FROM_BYTES, lease()));
        }
        assert_eq!(kept_bytes(&kept), [3 * KEPT_FROM_BYTES], "one is over the limit, two made room");
        drop(kept.allocate(KEPT_FROM_BYTES - WORD_BYTES, lease()));
        assert_eq!(kept_bytes(&kept), [3 * KEPT_FROM_BYTES], "a small one is not worth it");
    }

    #[test]
    fn what_is_used_and_what_is_kept_stay_below_the_limit_together() {
        let meter = Meter::new(4 * KEPT_FROM_BYTES as u64);
        let kept = Kept::new(4 * KEPT_FROM_BYTES);
        let allocate = |pieces: usize| {
            let bytes = pieces * KEPT_FROM_BYTES;
            kept.allocate(bytes, meter.lease(bytes).expect("there is room")).expect("there is memory")
        };
        drop((allocate(2), allocate(1)));
        assert_eq!(kept_bytes(&kept).len(), 2);
        let _used = allocate(3);
        assert_eq!(kept_bytes(&kept), [KEPT_FROM_BYTES], "the other one had to make room");
    }

    #[test]
    fn elements_begin_with_a_line_of_the_cache() {
        let kept = Kept::new(0);
        for bytes in [0, 1, 64, 1_000, 1 << 20] {
            let buffer = kept.allocate(bytes, lease()).expect("there is memory");
            let elements = read_buffer(&buffer);
            assert!(elements.all::<half::f16>().as_ptr().addr().is_multiple_of(LINE_BYTES));
            assert_eq!(elements.all::<i8>().len(), bytes.next_multiple_of(WORD_BYTES));
        }
    }
}
