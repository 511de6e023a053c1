//! How kernels are given buffers, and how many units run them.

use super::Cube;
use super::kernels::rows::Team;
use crate::memory::View;
use claw_graph::DType;
use cubecl::ir::features::Plane;
use cubecl::ir::{ElemType, FloatKind, IntKind, StorageType};
use cubecl::prelude::*;
use cubecl::server::Handle;

/// Units of a cube where each element is for itself.
const UNITS: u32 = 256;

impl<R: Runtime> Cube<R> {
    /// A buffer as a kernel's argument, `per_item` elements in an item.
    pub fn array(&self, view: &View, per_item: usize) -> ArrayArg<R> {
        let handle = view.buffer.memory::<Handle>().clone();
        let items = elements_of(&handle, view.of.dtype) / per_item;
        // SAFETY: as many items as the handle's own size has.
        unsafe { ArrayArg::from_raw_parts(handle, items) }
    }

    /// A buffer of 32-bit words as a kernel's argument, whatever it holds.
    pub fn words(&self, handle: Handle) -> ArrayArg<R> {
        let words = usize::try_from(handle.size_in_used()).unwrap_or(0) / 4;
        // SAFETY: as many words as the handle's own size has.
        unsafe { ArrayArg::from_raw_parts(handle, words) }
    }

    /// Figures for a kernel, which it reads from a buffer: they change without a kernel being compiled for them.
    pub fn figures(&self, figures: &[u32]) -> ArrayArg<R> {
        let handle = self.client.create_from_slice(bytemuck::cast_slice(figures));
        self.words(handle)
    }

    /// Cubes for so many units that each do one thing.
    pub fn units(&self, count: usize) -> (CubeCount, CubeDim) {
        let units = UNITS.min(self.client.properties().hardware.max_units_per_cube);
        let dim = CubeDim::new_1d(units);
        (self.cubes(count.div_ceil(units as usize)), dim)
    }

    /// So many cubes, in as many directions as it takes. A few more may be started: kernels look.
    pub fn cubes(&self, count: usize) -> CubeCount {
        let (x_max, y_max, _) = self.client.properties().hardware.max_cube_count;
        let (x_max, y_max) = (x_max.min(65_535) as usize, y_max.min(65_535) as usize);
        let x = count.min(x_max);
        let y = count.div_ceil(x_max).min(y_max);
        let z = count.div_ceil(x_max * y_max);
        let fits = |extent: usize| u32::try_from(extent).expect("no more cubes than elements");
        CubeCount::Static(fits(x), fits(y), fits(z))
    }

    /// Units that work on one row together: a power of two.
    pub fn units_of_a_row(&self, n: usize) -> u32 {
        let most = UNITS.min(self.client.properties().hardware.max_units_per_cube);
        let wanted = u32::try_from(n).unwrap_or(u32::MAX).clamp(32, most);
        1 << wanted.ilog2()
    }

    /// So many units as a team: with planes where all of the device's have one size, and they are whole.
    pub fn team_of(&self, units: u32) -> Team {
        let properties = self.client.properties();
        let plane = properties.hardware.plane_size_min;
        let has_planes = properties.features.plane.contains(Plane::Ops)
            && plane == properties.hardware.plane_size_max
            && plane.is_power_of_two()
            && units.is_multiple_of(plane);
        Team { units, plane: if has_planes { plane } else { 1 } }
    }
}

fn elements_of(handle: &Handle, dtype: DType) -> usize {
    usize::try_from(handle.size_in_used()).unwrap_or(0) / dtype.size_bytes()
}

/// A type as CubeCL names it.
pub fn storage(dtype: DType) -> StorageType {
    StorageType::Scalar(match dtype {
        DType::F32 => ElemType::Float(FloatKind::F32),
        DType::F16 => ElemType::Float(FloatKind::F16),
        DType::Bf16 => ElemType::Float(FloatKind::BF16),
        DType::I32 => ElemType::Int(IntKind::I32),
        DType::I8 => ElemType::Int(IntKind::I8),
    })
}

/// A figure as kernels count.
pub fn figure(value: usize) -> u32 {
    u32::try_from(value).expect("tensors were found countable")
}
