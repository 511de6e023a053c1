//! Shapes: extents by axis, row-major, and the rules by which two of them meet.

use crate::DType;
use std::fmt;
use std::ops::Deref;

/// Axes that a tensor may have. Kernels unroll over axes; eight is what other libraries settled on.
pub const RANK_MAX: usize = 8;
/// Elements that a tensor may have: 2^40, far over any device, and small enough that sizes in bytes and costs never overflow.
pub const ELEMENTS_MAX: usize = 1 << 40;

/// The extents of a tensor, outermost axis first. Empty for a scalar; an extent may be 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape(Vec<usize>);

/// Why extents are no shape, or shapes do not fit each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// More than [`RANK_MAX`] axes.
    #[error("{0} axes, and at most {RANK_MAX} are possible")]
    Rank(usize),
    /// More than [`ELEMENTS_MAX`] elements.
    #[error("more than 2^40 elements")]
    Elements,
    /// An axis that the shape has not.
    #[error("there is no axis {axis} in {shape}: count from 0 to {}, or from -1 back", shape.rank().saturating_sub(1))]
    Axis {
        /// The axis that was asked for.
        axis: i64,
        /// The shape that has it not.
        shape: Shape,
    },
    /// Two shapes that cannot be broadcast: on some axis, counted from the last, both are given, differ, and neither is 1.
    #[error("{0} and {1} cannot be broadcast to one shape")]
    Broadcast(Shape, Shape),
}

impl Shape {
    /// A shape of these extents.
    ///
    /// # Errors
    /// [`ShapeError::Rank`] and [`ShapeError::Elements`].
    pub fn new(extents: impl Into<Vec<usize>>) -> Result<Self, ShapeError> {
        let extents = extents.into();
        if extents.len() > RANK_MAX {
            return Err(ShapeError::Rank(extents.len()));
        }
        // Extents beside a 0 are bounded, too: they are multiplied by those who look at parts of the shape.
        let product = extents
            .iter()
            .filter(|extent| **extent > 0)
            .try_fold(1usize, |all, extent| all.checked_mul(*extent));
        match product {
            Some(all) if all <= ELEMENTS_MAX => Ok(Self(extents)),
            _ => Err(ShapeError::Elements),
        }
    }

    /// The shape of a single number.
    #[must_use]
    pub const fn scalar() -> Self {
        Self(Vec::new())
    }

    /// How many axes.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// How many elements; 1 for a scalar.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.0.iter().product()
    }

    /// The axis that `axis` means: negative ones count from the last.
    ///
    /// # Errors
    /// [`ShapeError::Axis`].
    pub fn axis(&self, axis: i64) -> Result<usize, ShapeError> {
        let rank = i64::try_from(self.rank()).unwrap_or(i64::MAX);
        let counted = if axis < 0 { axis + rank } else { axis };
        usize::try_from(counted)
            .ok()
            .filter(|found| *found < self.rank())
            .ok_or_else(|| ShapeError::Axis { axis, shape: self.clone() })
    }

    /// Elements between neighbours on each axis where rows lie one after the other.
    #[must_use]
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.rank()];
        for axis in (1..self.rank()).rev() {
            strides[axis - 1] = strides[axis] * self.0[axis].max(1);
        }
        strides
    }

    /// The smallest shape to which both can be repeated: axes are compared from the last, and an extent of 1 or none stretches.
    ///
    /// # Errors
    /// [`ShapeError::Broadcast`].
    pub fn broadcast(&self, other: &Self) -> Result<Self, ShapeError> {
        let rank = self.rank().max(other.rank());
        let extent = |of: &Self, axis: usize| (axis + of.rank()).checked_sub(rank).map_or(1, |own| of.0[own]);
        let joined = (0..rank).map(|axis| match (extent(self, axis), extent(other, axis)) {
            (one, another) if one == another => Some(one),
            (1, another) => Some(another),
            (one, 1) => Some(one),
            _ => None,
        });
        let joined: Option<Vec<usize>> = joined.collect();
        Self::new(joined.ok_or_else(|| ShapeError::Broadcast(self.clone(), other.clone()))?)
    }

    /// Itself with another extent on one axis.
    ///
    /// # Errors
    /// As [`Shape::new`].
    pub fn with(&self, axis: usize, extent: usize) -> Result<Self, ShapeError> {
        let mut extents = self.0.clone();
        extents[axis] = extent;
        Self::new(extents)
    }

    /// Itself without an axis.
    #[must_use]
    pub fn without(&self, axis: usize) -> Self {
        let mut extents = self.0.clone();
        extents.remove(axis);
        Self(extents)
    }

    /// The tensor as `outer` blocks of `extent` rows of `inner` elements, around one axis.
    #[must_use]
    pub fn around(&self, axis: usize) -> (usize, usize, usize) {
        (self.0[..axis].iter().product(), self.0[axis], self.0[axis + 1..].iter().product())
    }
}

impl Deref for Shape {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extents: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "[{}]", extents.join(","))
    }
}

/// What is known of a value before it is calculated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// The type of its elements.
    pub dtype: DType,
    /// Its extents.
    pub shape: Shape,
}

impl TensorType {
    /// A type and a shape together.
    #[must_use]
    pub const fn new(dtype: DType, shape: Shape) -> Self {
        Self { dtype, shape }
    }

    /// Bytes of all its elements, one after the other.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.shape.elements() * self.dtype.size_bytes()
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(extents: &[usize]) -> Shape {
        Shape::new(extents).expect("a shape")
    }

    #[test]
    fn axes_are_compared_from_the_last() {
        assert_eq!(shape(&[4, 1, 3]).broadcast(&shape(&[2, 1])), Ok(shape(&[4, 2, 3])));
        assert_eq!(shape(&[0, 1]).broadcast(&shape(&[5])), Ok(shape(&[0, 5])));
        assert_eq!(Shape::scalar().broadcast(&shape(&[7])), Ok(shape(&[7])));
        let wrong = shape(&[3]).broadcast(&shape(&[4])).expect_err("3 is not 4");
        assert_eq!(wrong.to_string(), "[3] and [4] cannot be broadcast to one shape");
    }

    #[test]
    fn what_is_too_large_is_no_shape() {
        assert_eq!(Shape::new([1; 9]), Err(ShapeError::Rank(9)));
        assert_eq!(Shape::new([1 << 20, 1 << 20, 2]), Err(ShapeError::Elements));
        assert_eq!(Shape::new([usize::MAX, usize::MAX, 0]), Err(ShapeError::Elements));
        assert_eq!(Shape::new([1 << 20, 1 << 20]).map(|shape| shape.elements()), Ok(ELEMENTS_MAX));
    }

    #[test]
    fn negative_axes_count_from_the_last() {
        assert_eq!(shape(&[2, 3]).axis(-1), Ok(1));
        assert_eq!(shape(&[2, 3]).axis(-2), Ok(0));
        let wrong = shape(&[2, 3]).axis(2).expect_err("two axes");
        assert_eq!(wrong.to_string(), "there is no axis 2 in [2,3]: count from 0 to 1, or from -1 back");
        assert!(Shape::scalar().axis(0).is_err() && shape(&[2]).axis(i64::MIN).is_err());
    }

    proptest! {
        #[test]
        fn broadcasting_is_symmetric_and_settles(a in proptest::collection::vec(0usize..4, 0..5), b in proptest::collection::vec(0usize..4, 0..5)) {
            let (a, b) = (shape(&a), shape(&b));
            let joined = a.broadcast(&b);
            prop_assert_eq!(joined.is_ok(), b.broadcast(&a).is_ok());
            if let Ok(joined) = joined {
                prop_assert_eq!(b.broadcast(&a), Ok(joined.clone()));
                prop_assert_eq!(joined.broadcast(&a), Ok(joined.clone()));
            }
        }
    }
}
