//! Links between NVIDIA's GPUs: what a copy from the memory of one to that of another takes, and whether the bytes arrive.

use cudarc::driver::{result, sys};
use std::time::Instant;

/// A copy there and a copy back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Copied {
    pub seconds_there: f64,
    pub seconds_back: f64,
    /// Whether all bytes arrived, there and back.
    pub is_right: bool,
}

type Told<T> = std::result::Result<T, result::DriverError>;

/// A device with its context, which is the process's own for it.
struct Side {
    device: sys::CUdevice,
    context: sys::CUcontext,
}

impl Side {
    fn open(number: usize) -> Told<Self> {
        let device = result::device::get(i32::try_from(number).unwrap_or(i32::MAX))?;
        // SAFETY: the device is one that the driver gave.
        let context = unsafe { result::primary_ctx::retain(device)? };
        Ok(Self { device, context })
    }

    /// What follows on this thread is of this device.
    fn enter(&self) -> Told<()> {
        // SAFETY: the context is retained.
        unsafe { result::ctx::set_current(self.context) }
    }

    fn reaches(&self, other: &Self) -> Told<bool> {
        let mut can = 0;
        // SAFETY: both are devices that the driver gave; the answer is written to a variable of its type.
        unsafe { sys::cuDeviceCanAccessPeer(&raw mut can, self.device, other.device).result()? };
        Ok(can != 0)
    }

    /// Lets the device reach the other's memory, if it does not yet.
    fn reach(&self, other: &Self) -> Told<()> {
        self.enter()?;
        // SAFETY: both contexts are retained.
        match unsafe { sys::cuCtxEnablePeerAccess(other.context, 0) } {
            sys::CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED => Ok(()),
            outcome => outcome.result(),
        }
    }

    fn memory(&self, bytes: usize) -> Told<Memory<'_>> {
        self.enter()?;
        // SAFETY: what is allocated is written before it is read.
        let place = unsafe { result::malloc_sync(bytes)? };
        Ok(Memory { side: self, place, bytes })
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // SAFETY: retained when it was opened. There is nothing to be done about a driver that refuses.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// Memory of a device.
struct Memory<'a> {
    side: &'a Side,
    place: sys::CUdeviceptr,
    bytes: usize,
}

impl Memory<'_> {
    fn write(&self, content: &[u8]) -> Told<()> {
        self.side.enter()?;
        // SAFETY: the memory has room for as many bytes.
        unsafe { result::memcpy_htod_sync(self.place, &content[..self.bytes])? };
        // It comes back as soon as the content may change, which is before all of it has arrived.
        result::ctx::synchronize()
    }

    fn read(&self) -> Told<Vec<u8>> {
        self.side.enter()?;
        let mut content = vec![0; self.bytes];
        // SAFETY: the memory has as many bytes.
        unsafe { result::memcpy_dtoh_sync(&mut content, self.place)? };
        Ok(content)
    }

    /// Seconds of a copy to memory of another device.
    fn copy_to(&self, to: &Memory<'_>) -> Told<f64> {
        self.side.enter()?;
        let start = Instant::now();
        // SAFETY: both memories are alive in their contexts until the copy has ended, and have as many bytes.
        unsafe {
            result::memcpy_peer_async(
                to.side.context,
                to.place,
                self.side.context,
                self.place,
                self.bytes.min(to.bytes),
                result::stream::null(),
            )?;
        }
        result::ctx::synchronize()?;
        Ok(start.elapsed().as_secs_f64())
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        // SAFETY: allocated when it was made; nothing uses it any more. There is nothing to be done about a driver that refuses.
        let _ = self.side.enter().and_then(|()| unsafe { result::free_sync(self.place) });
    }
}

/// Copies bytes from one device to another and back, so many times, and takes the best of each. `None` where they do not reach each other.
///
/// # Errors
/// What the driver says.
pub fn copied(
    numbers: [usize; 2],
    content: &[u8],
    turns: usize,
) -> std::result::Result<Option<Copied>, String> {
    super::cuda::counted()?;
    measured(numbers, content, turns).map_err(|error| error.to_string())
}

fn measured([one, other]: [usize; 2], content: &[u8], turns: usize) -> Told<Option<Copied>> {
    let (one, other) = (Side::open(one)?, Side::open(other)?);
    if !(one.reaches(&other)? && other.reaches(&one)?) {
        return Ok(None);
    }
    one.reach(&other)?;
    other.reach(&one)?;
    let (sent, arrived, returned) =
        (one.memory(content.len())?, other.memory(content.len())?, one.memory(content.len())?);
    sent.write(content)?;
    let mut copied = Copied { seconds_there: f64::INFINITY, seconds_back: f64::INFINITY, is_right: true };
    for _ in 0..turns {
        // So that what an earlier turn left is not taken for what this one brought.
        let nothing = vec![0; content.len()];
        arrived.write(&nothing)?;
        returned.write(&nothing)?;
        copied.seconds_there = copied.seconds_there.min(sent.copy_to(&arrived)?);
        copied.seconds_back = copied.seconds_back.min(arrived.copy_to(&returned)?);
        copied.is_right &= arrived.read()? == content && returned.read()? == content;
    }
    Ok(Some(copied))
}
