//! Devices behind CubeCL: one backend over any of its runtimes.
//!
//! *A launch that fails says nothing*: it is learnt by asking. `download` and `finish` ask before anything is read, and after a failure the
//! backend refuses everything, since CubeCL goes on with whatever was in memory. All work goes through one stream, in order.
#![expect(
    unsafe_code,
    reason = "CubeCL takes buffers with their lengths from us, and hands out its streams unsafely"
)]

mod attention;
mod bytes;
mod choice;
#[cfg(feature = "wgpu")]
mod heap;
mod index;
mod kernels;
mod launch;
mod map;
mod matmul;
#[cfg(all(test, feature = "cuda"))]
mod nvrtc;
mod open;
#[cfg(feature = "cuda")]
pub mod peer;
mod random;
mod rows;
#[cfg(feature = "wgpu")]
pub mod vulkan;

#[cfg(feature = "cuda")]
pub use open::cuda;

use crate::backend::{Backend, Fault, Properties, Step};
use crate::error::{Error, Result};
use crate::memory::{Buffer, Lease, View};
use choice::Choices;
use cubecl::prelude::*;
use cubecl::server::Handle;
use cubecl::stream_id::StreamId;
use matmul::{Products, Routine};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A device of one of CubeCL's runtimes.
pub struct Cube<R: Runtime> {
    client: ComputeClient<R>,
    properties: Properties,
    /// Why nothing of this device is believed any more.
    failed: Mutex<Option<Error>>,
    turns: rows::Turns,
    products: Products<R>,
    /// Asks the driver for bytes that nobody uses.
    free: Box<dyn Fn() -> Option<u64> + Send + Sync>,
}

impl<R: Runtime> Cube<R> {
    /// A backend over a client that nobody else uses, with routines for products beside the plain one.
    fn new(mut client: ComputeClient<R>, properties: Properties, routines: Vec<Routine<R>>) -> Self {
        // SAFETY: the stream is of this client alone, and lives as long as it.
        unsafe { client.set_stream(StreamId { value: 1 }) };
        let choices = Choices::new(&properties.model, properties.driver.as_deref());
        Self {
            client,
            properties,
            failed: Mutex::new(None),
            turns: rows::Turns::default(),
            products: Products { routines, choices },
            free: Box::new(|| None),
        }
    }

    /// Refuses if something failed before.
    fn trusted(&self) -> Result<()> {
        match &*self.failed.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Remembers a failure for all who come later.
    fn fail(&self, why: impl std::fmt::Display) -> Error {
        let error = Error::Failed(why.to_string());
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error).clone()
    }

    /// Asks how everything ended that was started.
    fn settle(&self) -> Result<()> {
        self.trusted()?;
        self.client.flush().map_err(|error| self.fail(error))?;
        cubecl::future::block_on(self.client.sync()).map_err(|error| self.fail(error))
    }
}

/// Buffers are whole words of what devices bind: 16 bytes.
fn padded(bytes: usize) -> usize {
    bytes.max(1).next_multiple_of(16)
}

impl<R: Runtime> Backend for Cube<R> {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn memory_free_bytes(&self) -> Option<u64> {
        (self.free)()
    }

    fn allocate(&self, bytes: usize, lease: Lease) -> Result<Buffer> {
        self.trusted()?;
        Ok(Buffer::new(self.client.empty(padded(bytes)), lease))
    }

    fn upload(&self, bytes: &[u8], lease: Lease) -> Result<Buffer> {
        self.trusted()?;
        let mut whole = Vec::with_capacity(padded(bytes.len()));
        whole.extend_from_slice(bytes);
        whole.resize(padded(bytes.len()), 0);
        Ok(Buffer::new(self.client.create_from_slice(&whole), lease))
    }

    fn download(&self, buffer: &Buffer, bytes: usize) -> Result<Vec<u8>> {
        self.settle()?;
        let read =
            self.client.read_one(buffer.memory::<Handle>().clone()).map_err(|error| self.fail(error))?;
        // Reading starts work of its own.
        self.client.flush().map_err(|error| self.fail(error))?;
        match read.get(..bytes) {
            Some(content) => Ok(content.to_vec()),
            None => Err(self.fail(format_args!("{} of {bytes} bytes were read", read.len()))),
        }
    }

    fn start(&self, step: &Step, operands: &[View], results: &[View], fault: Option<&Fault>) -> Result<()> {
        self.trusted()?;
        for view in operands.iter().chain(results) {
            self.countable(view)?;
        }
        let to = &results[0];
        match step {
            Step::Map(program) => self.map(program, operands, to),
            Step::Copy => self.copy(&operands[0], to),
            Step::Cast => self.cast(&operands[0], to),
            Step::Random { distribution, seed } => self.random(*distribution, *seed, to),
            Step::Reduce { reduction, rows } => self.reduce(*reduction, *rows, &operands[0], to),
            Step::ArgReduce { largest, rows } => self.arg_reduce(*largest, *rows, &operands[0], to),
            Step::CountDifferent { rows } => self.count_different(*rows, operands, to),
            Step::Softmax { log, rows } => self.softmax(*log, *rows, &operands[0], to),
            Step::Norm { epsilon, rows } => self.norm(*epsilon, *rows, operands, to),
            Step::Rotary { base, offset } => self.rotary(*base, *offset, &operands[0], to),
            Step::MatMul => return self.matmul(operands, to),
            Step::Attention { causal, scale } => self.attention(*causal, *scale, operands, to),
            Step::TopK { k, largest, rows } => self.top_k(*k, *largest, *rows, &operands[0], results),
            Step::Gather { rows } => self.gather(*rows, operands, to, fault),
            Step::ScatterAdd { rows } => self.scatter_add(*rows, operands, to, fault),
            Step::Quantize { rows } => self.quantize(*rows, &operands[0], results),
            Step::Dequantize { rows } => self.dequantize(*rows, operands, to),
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        self.settle()
    }

    fn keep_choices(&self, folder: &Path) {
        self.products.choices.keep_in(folder);
    }
}

impl<R: Runtime> Cube<R> {
    /// Kernels count elements in 32 bits.
    fn countable(&self, view: &View) -> Result<()> {
        let reach: usize = view
            .of
            .shape
            .iter()
            .zip(&view.layout.strides)
            .map(|(extent, stride)| extent.saturating_sub(1) * stride)
            .sum();
        if u32::try_from(view.layout.offset + reach).is_ok_and(|last| last < u32::MAX) {
            return Ok(());
        }
        Err(Error::Unsupported {
            device: self.properties.id.clone(),
            what: format!("address {} in 32 bits", view.of),
        })
    }
}
