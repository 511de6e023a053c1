//! What comes out of an operation, or why it cannot be: the rules about types and shapes.

use crate::{DType, Distribution, Op, Reduction, Shape, ShapeError, TensorType};

/// Why an operation does not fit its operands, in words that need its name before them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misfit(pub String);

impl From<ShapeError> for Misfit {
    fn from(error: ShapeError) -> Self {
        Self(error.to_string())
    }
}

type Inferred = Result<Vec<TensorType>, Misfit>;

fn misfit<T>(words: impl Into<String>) -> Result<T, Misfit> {
    Err(Misfit(words.into()))
}

/// The types of an operation's results.
pub fn infer(op: &Op, operands: &[&TensorType]) -> Inferred {
    match op {
        Op::Fill { dtype, shape, value } => fill(*dtype, shape, *value, operands),
        Op::Random { distribution, dtype, shape, .. } => random(*distribution, *dtype, shape, operands),
        Op::Unary(_) => {
            let [x] = floats(operands)?;
            one(x.dtype, x.shape.clone())
        }
        Op::Binary(_) => {
            let [a, b] = alike(operands)?;
            one(a.dtype, a.shape.broadcast(&b.shape)?)
        }
        Op::Where => {
            let [condition, a, b] = alike(operands)?;
            one(a.dtype, condition.shape.broadcast(&a.shape.broadcast(&b.shape)?)?)
        }
        Op::Cast(dtype) => cast(*dtype, operands),
        Op::Reshape(shape) => reshape(shape, operands),
        Op::Permute(order) => permute(order, operands),
        Op::Broadcast(shape) => broadcast(shape, operands),
        Op::Slice { axis, start, len } => slice(*axis, *start, *len, operands),
        Op::Concat { axis } => concat(*axis, operands),
        Op::Reduce { reduction, axis, keep } => reduce(*reduction, *axis, *keep, operands),
        Op::ArgReduce { axis, keep, .. } => arg_reduce(*axis, *keep, operands),
        Op::CountDifferent { axis, keep } => count_different(*axis, *keep, operands),
        Op::Softmax { axis, .. } => {
            let [x] = floats(operands)?;
            has_axis(x, *axis)?;
            one(x.dtype, x.shape.clone())
        }
        Op::LayerNorm { epsilon } => norm::<3>(*epsilon, operands),
        Op::RmsNorm { epsilon } => norm::<2>(*epsilon, operands),
        Op::Rotary { base, .. } => rotary(*base, operands),
        Op::MatMul { wide, transpose_lhs, transpose_rhs } => {
            matmul(*wide, *transpose_lhs, *transpose_rhs, operands)
        }
        Op::Attention { causal, scale } => attention(*causal, *scale, operands),
        Op::TopK { k, .. } => top_k(*k, operands),
        Op::Gather { axis } => gather(*axis, operands),
        Op::ScatterAdd { axis } => scatter(*axis, operands),
        Op::Quantize => quantize(operands),
        Op::Dequantize(dtype) => dequantize(*dtype, operands),
    }
}

fn one(dtype: DType, shape: Shape) -> Inferred {
    Ok(vec![TensorType::new(dtype, shape)])
}

/// As many operands as the operation takes.
fn count<'a, const N: usize>(operands: &[&'a TensorType]) -> Result<[&'a TensorType; N], Misfit> {
    operands.try_into().or_else(|_| misfit(format!("takes {N} operands and was given {}", operands.len())))
}

/// As many operands as the operation takes, all of float types.
fn floats<'a, const N: usize>(operands: &[&'a TensorType]) -> Result<[&'a TensorType; N], Misfit> {
    let operands = count(operands)?;
    match operands.iter().find(|operand| !operand.dtype.is_float()) {
        Some(other) => misfit(format!(
            "calculates with f32, f16 and bf16, and an operand is {other}: put a Cast before it"
        )),
        None => Ok(operands),
    }
}

/// As many operands as the operation takes, all of one float type.
fn alike<'a, const N: usize>(operands: &[&'a TensorType]) -> Result<[&'a TensorType; N], Misfit> {
    let operands = floats::<N>(operands)?;
    match operands.iter().find(|operand| operand.dtype != operands[0].dtype) {
        Some(other) => {
            misfit(format!("operands are {} and {other}: put a Cast before one of them", operands[0]))
        }
        None => Ok(operands),
    }
}

fn has_axis(operand: &TensorType, axis: usize) -> Result<(), Misfit> {
    operand.shape.axis(i64::try_from(axis).unwrap_or(i64::MAX))?;
    Ok(())
}

/// The extent of the last axis.
fn last(operand: &TensorType) -> Result<usize, Misfit> {
    operand
        .shape
        .last()
        .copied()
        .map_or_else(|| misfit(format!("needs at least one axis, and {operand} is a scalar")), Ok)
}

fn finite(name: &str, value: f64) -> Result<(), Misfit> {
    if value.is_finite() { Ok(()) } else { misfit(format!("{name} is {value}, and must be finite")) }
}

fn fill(dtype: DType, shape: &Shape, value: f64, operands: &[&TensorType]) -> Inferred {
    let [] = count(operands)?;
    match dtype {
        DType::I8 => misfit("i8 comes from Quantize only"),
        DType::I32
            if value.fract() != 0.0 || !(f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&value) =>
        {
            misfit(format!("{value} is no i32"))
        }
        _ => one(dtype, shape.clone()),
    }
}

fn random(distribution: Distribution, dtype: DType, shape: &Shape, operands: &[&TensorType]) -> Inferred {
    let [] = count(operands)?;
    match distribution {
        Distribution::Uniform { low, high } => {
            finite("low", low)?;
            finite("high", high)?;
            if low > high {
                return misfit(format!("low is {low}, more than high, {high}"));
            }
        }
        Distribution::Normal { mean, deviation } => {
            finite("mean", mean)?;
            finite("deviation", deviation)?;
            if deviation < 0.0 {
                return misfit(format!("deviation is {deviation}, and must not be negative"));
            }
        }
        Distribution::Integers { low, high } if low > high => {
            return misfit(format!("low is {low}, more than high, {high}"));
        }
        Distribution::Integers { .. } => {}
    }
    match (distribution, dtype) {
        (_, DType::I8) => misfit("i8 comes from Quantize only"),
        (Distribution::Integers { .. }, _) => one(dtype, shape.clone()),
        (_, DType::I32) => misfit("i32 is drawn from Integers only"),
        _ => one(dtype, shape.clone()),
    }
}

fn cast(dtype: DType, operands: &[&TensorType]) -> Inferred {
    let [x] = count(operands)?;
    match (x.dtype, dtype) {
        (DType::I8, _) | (_, DType::I8) => misfit("i8 has a scale beside it: use Quantize and Dequantize"),
        _ => one(dtype, x.shape.clone()),
    }
}

fn reshape(shape: &Shape, operands: &[&TensorType]) -> Inferred {
    let [x] = count(operands)?;
    if x.shape.elements() != shape.elements() {
        return misfit(format!("{x} has {} elements, and {shape} {}", x.shape.elements(), shape.elements()));
    }
    one(x.dtype, shape.clone())
}

fn permute(order: &[usize], operands: &[&TensorType]) -> Inferred {
    let [x] = count(operands)?;
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..x.shape.rank()) {
        return misfit(format!(
            "the order {order:?} must name each of the {} axes of {x} once",
            x.shape.rank()
        ));
    }
    one(x.dtype, Shape::new(order.iter().map(|axis| x.shape[*axis]).collect::<Vec<_>>())?)
}

fn broadcast(shape: &Shape, operands: &[&TensorType]) -> Inferred {
    let [x] = count(operands)?;
    match x.shape.broadcast(shape) {
        Ok(joined) if joined == *shape => one(x.dtype, joined),
        _ => misfit(format!("{x} cannot be repeated to {shape}")),
    }
}

fn slice(axis: usize, start: usize, len: usize, operands: &[&TensorType]) -> Inferred {
    let [x] = count(operands)?;
    has_axis(x, axis)?;
    match start.checked_add(len) {
        Some(end) if end <= x.shape[axis] => one(x.dtype, x.shape.with(axis, len)?),
        _ => misfit(format!("{len} from {start} on leads out of axis {axis} of {x}")),
    }
}

fn concat(axis: usize, operands: &[&TensorType]) -> Inferred {
    let Some((first, others)) = operands.split_first() else { return misfit("takes at least one operand") };
    has_axis(first, axis)?;
    let mut extent = first.shape[axis];
    for other in others {
        let fits = other.dtype == first.dtype && other.shape.rank() == first.shape.rank();
        if !fits || other.shape.without(axis) != first.shape.without(axis) {
            return misfit(format!("{first} and {other} differ in more than axis {axis}"));
        }
        extent = extent.saturating_add(other.shape[axis]);
    }
    one(first.dtype, first.shape.with(axis, extent)?)
}

/// The shape without the axis along which rows lay.
fn reduced(x: &TensorType, axis: usize, keep: bool) -> Result<Shape, Misfit> {
    has_axis(x, axis)?;
    if keep { Ok(x.shape.with(axis, 1)?) } else { Ok(x.shape.without(axis)) }
}

/// Rows that must have an element each, since there is no answer without.
fn not_empty(x: &TensorType, axis: usize) -> Result<(), Misfit> {
    if x.shape[axis] == 0 { misfit(format!("rows of {x} along axis {axis} are empty")) } else { Ok(()) }
}

fn reduce(reduction: Reduction, axis: usize, keep: bool, operands: &[&TensorType]) -> Inferred {
    let [x] = floats(operands)?;
    let shape = reduced(x, axis, keep)?;
    if matches!(reduction, Reduction::Max | Reduction::Min) {
        not_empty(x, axis)?;
    }
    one(x.dtype, shape)
}

/// Indices are `I32`.
fn countable(x: &TensorType, axis: usize) -> Result<(), Misfit> {
    if i32::try_from(x.shape[axis]).is_err() {
        misfit(format!("axis {axis} of {x} is longer than an i32 counts"))
    } else {
        Ok(())
    }
}

fn arg_reduce(axis: usize, keep: bool, operands: &[&TensorType]) -> Inferred {
    let [x] = floats(operands)?;
    let shape = reduced(x, axis, keep)?;
    not_empty(x, axis)?;
    countable(x, axis)?;
    one(DType::I32, shape)
}

fn count_different(axis: usize, keep: bool, operands: &[&TensorType]) -> Inferred {
    let [a, b] = count(operands)?;
    if a != b || !matches!(a.dtype, DType::F32 | DType::I32) {
        return misfit(format!(
            "compares bits of f32 or of i32 in one shape, not {a} and {b}: put a Cast before them"
        ));
    }
    let shape = reduced(a, axis, keep)?;
    countable(a, axis)?;
    one(DType::I32, shape)
}

/// `x`, then vectors as long as its last axis.
fn norm<const N: usize>(epsilon: f64, operands: &[&TensorType]) -> Inferred {
    let all = alike::<N>(operands)?;
    let width = last(all[0])?;
    if !(epsilon.is_finite() && epsilon >= 0.0) {
        return misfit(format!("epsilon is {epsilon}, and must be finite and not negative"));
    }
    if let Some(other) = all[1..].iter().find(|other| *other.shape != [width]) {
        return misfit(format!("rows of {} are {width} long, and {other} is no vector of {width}", all[0]));
    }
    one(all[0].dtype, all[0].shape.clone())
}

fn rotary(base: f64, operands: &[&TensorType]) -> Inferred {
    let [x] = floats(operands)?;
    if x.shape.rank() < 2 || last(x)? % 2 != 0 {
        return misfit(format!("needs […, positions, width] with an even width, and was given {x}"));
    }
    if !(base.is_finite() && base > 0.0) {
        return misfit(format!("base is {base}, and must be positive"));
    }
    one(x.dtype, x.shape.clone())
}

fn matmul(wide: bool, transpose_lhs: bool, transpose_rhs: bool, operands: &[&TensorType]) -> Inferred {
    let [a, b] = alike(operands)?;
    let (Some((a_batch, [a_rows, a_columns])), Some((b_batch, [b_rows, b_columns]))) =
        (a.shape.split_last_chunk::<2>(), b.shape.split_last_chunk::<2>())
    else {
        return misfit(format!("multiplies matrices, and was given {a} and {b}"));
    };
    let (m, k) = if transpose_lhs { (*a_columns, *a_rows) } else { (*a_rows, *a_columns) };
    let (other_k, n) = if transpose_rhs { (*b_columns, *b_rows) } else { (*b_rows, *b_columns) };
    if k != other_k {
        return misfit(format!("{a} and {b}: the inner extents {k} and {other_k} differ"));
    }
    let batch = Shape::new(a_batch)?.broadcast(&Shape::new(b_batch)?)?;
    one(if wide { DType::F32 } else { a.dtype }, Shape::new([&batch[..], &[m, n]].concat())?)
}

fn attention(causal: bool, scale: Option<f64>, operands: &[&TensorType]) -> Inferred {
    let [query, key, value] = alike(operands)?;
    let ([batch, heads, positions, width], [b1, h1, keys, w1], [b2, h2, values, width_out]) =
        (extents(query)?, extents(key)?, extents(value)?);
    if (batch, heads) != (b1, h1) || (batch, heads) != (b2, h2) || width != w1 || keys != values {
        return misfit(format!(
            "{query}, {key} and {value} do not fit: [batch,heads,positions,width] each, as many values as keys"
        ));
    }
    if let Some(scale) = scale {
        finite("scale", scale)?;
    }
    if keys == 0 || width == 0 {
        return misfit("nothing to attend to: there are no keys");
    }
    if causal && positions > keys {
        return misfit(format!("{positions} queries for {keys} keys: with causal, the first would see none"));
    }
    one(query.dtype, Shape::new([batch, heads, positions, width_out])?)
}

fn extents(x: &TensorType) -> Result<[usize; 4], Misfit> {
    x.shape[..]
        .try_into()
        .or_else(|_| misfit(format!("needs [batch,heads,positions,width], and was given {x}")))
}

fn top_k(k: usize, operands: &[&TensorType]) -> Inferred {
    let [x] = floats(operands)?;
    let width = last(x)?;
    let axis = x.shape.rank() - 1;
    if k > width {
        return misfit(format!("{k} of rows of {x}, which are {width} long"));
    }
    countable(x, axis)?;
    let shape = x.shape.with(axis, k)?;
    Ok(vec![TensorType::new(x.dtype, shape.clone()), TensorType::new(DType::I32, shape)])
}

/// The number of indices in a vector of them.
fn indices(of: &TensorType) -> Result<usize, Misfit> {
    match (of.dtype, &of.shape[..]) {
        (DType::I32, [length]) => Ok(*length),
        _ => misfit(format!("indices are an i32 vector, and were given as {of}")),
    }
}

fn gather(axis: usize, operands: &[&TensorType]) -> Inferred {
    let [x, at] = count(operands)?;
    has_axis(x, axis)?;
    countable(x, axis)?;
    one(x.dtype, x.shape.with(axis, indices(at)?)?)
}

fn scatter(axis: usize, operands: &[&TensorType]) -> Inferred {
    let [x, at, updates] = count(operands)?;
    has_axis(x, axis)?;
    countable(x, axis)?;
    let _: [&TensorType; 2] = alike(&[x, updates])?;
    let wanted = x.shape.with(axis, indices(at)?)?;
    if updates.shape != wanted {
        return misfit(format!("updates are {updates}, and must be {wanted}"));
    }
    one(x.dtype, x.shape.clone())
}

fn quantize(operands: &[&TensorType]) -> Inferred {
    let [x] = floats(operands)?;
    last(x)?;
    let scales = x.shape.without(x.shape.rank() - 1);
    Ok(vec![TensorType::new(DType::I8, x.shape.clone()), TensorType::new(DType::F32, scales)])
}

fn dequantize(dtype: DType, operands: &[&TensorType]) -> Inferred {
    let [q, scale] = count(operands)?;
    last(q)?;
    if q.dtype != DType::I8 || scale.dtype != DType::F32 || scale.shape != q.shape.without(q.shape.rank() - 1)
    {
        return misfit(format!(
            "takes i8 values and an f32 scale for each row, and was given {q} and {scale}"
        ));
    }
    if !dtype.is_float() {
        return misfit(format!("gives a float, not {dtype}"));
    }
    one(dtype, q.shape.clone())
}
