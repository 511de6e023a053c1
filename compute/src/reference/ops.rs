//! One operation at a time, on `f64`.

use super::{Exact, round};
use crate::philox;
use claw_graph::{Binary, Distribution, Op, Reduction, Shape, TensorType, Unary};

/// The results of an operation; `None` if an index is outside its axis.
pub fn run(op: &Op, operands: &[&Exact], results: &[&TensorType]) -> Option<Vec<Vec<f64>>> {
    let to = results[0];
    let x = operands.first();
    let axis_of = |axis: usize| x.expect("has an operand").of.shape.around(axis);
    let last = || axis_of(x.expect("has an operand").of.shape.rank() - 1);
    let values = || &x.expect("has an operand").values;
    Some(vec![match op {
        Op::Fill { value, dtype, .. } => vec![round(*dtype, *value); to.shape.elements()],
        Op::Random { distribution, seed, .. } => {
            (0..to.shape.elements()).map(|at| drawn(*distribution, *seed, at as u64)).collect()
        }
        Op::Unary(function) => values().iter().map(|x| unary(*function, *x)).collect(),
        Op::Binary(function) => {
            let [a, b] = [0, 1].map(|operand| stretched(operands[operand], &to.shape));
            a.into_iter().zip(b).map(|(a, b)| binary(*function, a, b)).collect()
        }
        Op::Where => {
            let [condition, a, b] = [0, 1, 2].map(|operand| stretched(operands[operand], &to.shape));
            let pairs = a.into_iter().zip(b);
            condition
                .into_iter()
                .zip(pairs)
                .map(|(condition, (a, b))| if condition == 0.0 { b } else { a })
                .collect()
        }
        Op::Cast(dtype) => values().iter().map(|value| round(*dtype, *value)).collect(),
        Op::Reshape(_) => values().clone(),
        Op::Permute(order) => permuted(operands[0], order, &to.shape),
        Op::Broadcast(shape) => stretched(operands[0], shape),
        Op::Slice { axis, start, len } => {
            let (_, n, inner) = axis_of(*axis);
            values()
                .chunks(n.max(1) * inner.max(1))
                .flat_map(|block| &block[start * inner..(start + len) * inner])
                .copied()
                .collect()
        }
        Op::Concat { axis } => concat(operands, *axis),
        Op::Reduce { reduction, axis, .. } => {
            along(values(), axis_of(*axis), |row| vec![reduced(*reduction, row)])
        }
        Op::ArgReduce { largest, axis, .. } => {
            along(values(), axis_of(*axis), |row| vec![in_order(row, *largest)[0] as f64])
        }
        Op::CountDifferent { axis, .. } => {
            // A float64 holds the value of each exactly, with its sign.
            let differs = |(a, b): (&f64, &f64)| f64::from(u8::from(a.to_bits() != b.to_bits()));
            let differing: Vec<f64> = values().iter().zip(&operands[1].values).map(differs).collect();
            along(&differing, axis_of(*axis), |row| vec![reduced(Reduction::Sum, row)])
        }
        Op::Softmax { axis, log } => along(values(), axis_of(*axis), |row| softmax(row, *log)),
        Op::LayerNorm { epsilon } => {
            let normal = along(values(), last(), |row| {
                let mean = reduced(Reduction::Mean, row);
                let centred: Vec<f64> = row.iter().map(|x| x - mean).collect();
                over_root_mean_square(&centred, *epsilon)
            });
            let (scale, shift) = (&operands[1].values, &operands[2].values);
            normal
                .iter()
                .enumerate()
                .map(|(at, x)| x * scale[at % scale.len()] + shift[at % scale.len()])
                .collect()
        }
        Op::RmsNorm { epsilon } => {
            let normal = along(values(), last(), |row| over_root_mean_square(row, *epsilon));
            let scale = &operands[1].values;
            normal.iter().enumerate().map(|(at, x)| x * scale[at % scale.len()]).collect()
        }
        Op::Rotary { base, offset } => rotary(operands[0], *base, *offset),
        Op::MatMul { transpose_lhs, transpose_rhs, .. } => {
            matmul(operands, [*transpose_lhs, *transpose_rhs], &to.shape)
        }
        Op::Attention { causal, scale } => attention(operands, *causal, *scale),
        Op::TopK { k, largest } => {
            let first = |row: &[f64]| in_order(row, *largest)[..*k].to_vec();
            let best = along(values(), last(), |row| first(row).into_iter().map(|at| row[at]).collect());
            return Some(vec![
                best,
                along(values(), last(), |row| first(row).into_iter().map(|at| at as f64).collect()),
            ]);
        }
        Op::Gather { axis } => gather(operands, axis_of(*axis))?,
        Op::ScatterAdd { axis } => scatter(operands, axis_of(*axis))?,
        Op::Quantize => return Some(quantized(values(), last())),
        Op::Dequantize(_) => {
            let (_, n, _) = last();
            values().iter().enumerate().map(|(at, q)| q * operands[1].values[at / n]).collect()
        }
    }])
}

pub fn unary(function: Unary, x: f64) -> f64 {
    match function {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Recip => 1.0 / x,
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Relu => maximum(x, 0.0),
        // By erfc where 1 + erf would cancel.
        Unary::Gelu if x < 0.0 => x / 2.0 * libm::erfc(-x / std::f64::consts::SQRT_2),
        Unary::Gelu => x / 2.0 * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)),
        Unary::Silu => x / (1.0 + (-x).exp()),
        Unary::Erf => libm::erf(x),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
    }
}

pub fn binary(function: Binary, a: f64, b: f64) -> f64 {
    let truth = |is: bool| if is { 1.0 } else { 0.0 };
    match function {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Min => -maximum(-a, -b),
        Binary::Max => maximum(a, b),
        Binary::Pow => a.powf(b),
        Binary::Equal => truth(a == b),
        Binary::Less => truth(a < b),
        Binary::LessEqual => truth(a <= b),
    }
}

/// The larger, NaN if either is.
fn maximum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Repeated to a shape.
fn stretched(x: &Exact, shape: &Shape) -> Vec<f64> {
    let strides = x.of.shape.strides();
    let missing = shape.rank() - x.of.shape.rank();
    let stride = |axis: usize| {
        if axis < missing || x.of.shape[axis - missing] == 1 { 0 } else { strides[axis - missing] }
    };
    let strides: Vec<usize> = (0..shape.rank()).map(stride).collect();
    picked(&x.values, shape, &strides)
}

fn permuted(x: &Exact, order: &[usize], shape: &Shape) -> Vec<f64> {
    let strides = x.of.shape.strides();
    picked(&x.values, shape, &order.iter().map(|axis| strides[*axis]).collect::<Vec<_>>())
}

/// A tensor of a shape, whose elements lie so far apart on each axis.
fn picked(values: &[f64], shape: &Shape, strides: &[usize]) -> Vec<f64> {
    let own = shape.strides();
    let place =
        |at: usize| (0..shape.rank()).map(|axis| at / own[axis] % shape[axis] * strides[axis]).sum::<usize>();
    (0..shape.elements()).map(|at| values[place(at)]).collect()
}

fn concat(operands: &[&Exact], axis: usize) -> Vec<f64> {
    let (outer, _, _) = operands[0].of.shape.around(axis);
    let block = |operand: &Exact, number: usize| {
        let (_, n, inner) = operand.of.shape.around(axis);
        operand.values[number * n * inner..(number + 1) * n * inner].to_vec()
    };
    (0..outer).flat_map(|number| operands.iter().flat_map(move |operand| block(operand, number))).collect()
}

/// A function of each row along an axis, put where the row was.
fn along(
    values: &[f64],
    (outer, n, inner): (usize, usize, usize),
    function: impl Fn(&[f64]) -> Vec<f64>,
) -> Vec<f64> {
    let mut all = Vec::new();
    for block in 0..outer {
        let rows: Vec<Vec<f64>> = (0..inner)
            .map(|column| {
                function(&(0..n).map(|at| values[(block * n + at) * inner + column]).collect::<Vec<_>>())
            })
            .collect();
        let length = rows.first().map_or(0, Vec::len);
        all.extend((0..length).flat_map(|at| rows.iter().map(move |row| row[at])));
    }
    all
}

fn reduced(reduction: Reduction, row: &[f64]) -> f64 {
    match reduction {
        Reduction::Sum => row.iter().sum(),
        Reduction::Prod => row.iter().product(),
        Reduction::Mean => row.iter().sum::<f64>() / row.len() as f64,
        Reduction::Max => row.iter().copied().fold(f64::NEG_INFINITY, maximum),
        Reduction::Min => row.iter().copied().fold(f64::INFINITY, |a, b| -maximum(-a, -b)),
    }
}

/// Indices by value: NaN first, equals as they come.
fn in_order(row: &[f64], largest: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    let rank = |x: f64| if largest { -x } else { x };
    order.sort_by(|a, b| match (row[*a].is_nan(), row[*b].is_nan()) {
        (false, false) => rank(row[*a]).partial_cmp(&rank(row[*b])).expect("numbers"),
        (a, b) => b.cmp(&a),
    });
    order
}

fn softmax(row: &[f64], log: bool) -> Vec<f64> {
    let max = reduced(Reduction::Max, row);
    let sum: f64 = row.iter().map(|x| (x - max).exp()).sum();
    row.iter().map(|x| if log { x - max - sum.ln() } else { (x - max).exp() / sum }).collect()
}

fn over_root_mean_square(row: &[f64], epsilon: f64) -> Vec<f64> {
    let mean_square = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
    row.iter().map(|x| x / (mean_square + epsilon).sqrt()).collect()
}

fn rotary(x: &Exact, base: f64, offset: usize) -> Vec<f64> {
    let rank = x.of.shape.rank();
    let (positions, width) = (x.of.shape[rank - 2], x.of.shape[rank - 1]);
    let half = width / 2;
    let mut turned = x.values.clone();
    for (row, values) in x.values.chunks(width.max(1)).enumerate() {
        let position = (row % positions + offset) as f64;
        for at in 0..half {
            let angle = position / base.powf(2.0 * at as f64 / width as f64);
            let (a, b) = (values[at], values[at + half]);
            turned[row * width + at] = a * angle.cos() - b * angle.sin();
            turned[row * width + at + half] = a * angle.sin() + b * angle.cos();
        }
    }
    turned
}

fn matmul(operands: &[&Exact], transposed: [bool; 2], to: &Shape) -> Vec<f64> {
    let batch = &to[..to.rank() - 2];
    let (m, n) = (to[to.rank() - 2], to[to.rank() - 1]);
    let [a, b] = [0, 1].map(|operand: usize| {
        let shape = &operands[operand].of.shape;
        let matrix = &shape[shape.rank() - 2..];
        let wanted = Shape::new([batch, matrix].concat()).expect("a shape");
        stretched(operands[operand], &wanted)
    });
    let k = operands[0].of.shape[operands[0].of.shape.rank() - if transposed[0] { 2 } else { 1 }];
    let lhs = |block: usize, i: usize, p: usize| {
        a[block * m * k + if transposed[0] { p * m + i } else { i * k + p }]
    };
    let rhs = |block: usize, p: usize, j: usize| {
        b[block * k * n + if transposed[1] { j * k + p } else { p * n + j }]
    };
    let element = |at: usize| {
        let (block, i, j) = (at / (m * n), at / n % m, at % n);
        (0..k).map(|p| lhs(block, i, p) * rhs(block, p, j)).sum()
    };
    (0..to.elements()).map(element).collect()
}

fn attention(operands: &[&Exact], causal: bool, scale: Option<f64>) -> Vec<f64> {
    let extents =
        |operand: usize| <[usize; 4]>::try_from(&operands[operand].of.shape[..]).expect("four axes");
    let ([batch, heads, positions, width], [_, _, keys, _], [_, _, _, width_out]) =
        (extents(0), extents(1), extents(2));
    let scale = scale.unwrap_or_else(|| 1.0 / (width as f64).sqrt());
    let row = |operand: usize, block: usize, at: usize| {
        let [_, _, length, width] = extents(operand);
        &operands[operand].values[(block * length + at) * width..][..width]
    };
    let mut all = Vec::new();
    for (block, query) in (0..batch * heads).flat_map(|block| (0..positions).map(move |query| (block, query)))
    {
        let seen = if causal { keys - positions + query + 1 } else { keys };
        let score = |key: usize| {
            row(0, block, query).iter().zip(row(1, block, key)).map(|(a, b)| a * b).sum::<f64>() * scale
        };
        let weights = softmax(&(0..seen).map(score).collect::<Vec<_>>(), false);
        all.extend((0..width_out).map(|at| {
            weights.iter().enumerate().map(|(key, weight)| weight * row(2, block, key)[at]).sum::<f64>()
        }));
    }
    all
}

/// An index as a place on an axis.
fn place(index: f64, n: usize) -> Option<usize> {
    (index >= 0.0 && index < n as f64).then_some(index as usize)
}

fn gather(operands: &[&Exact], (outer, n, inner): (usize, usize, usize)) -> Option<Vec<f64>> {
    let mut all = Vec::new();
    let places: Option<Vec<usize>> = operands[1].values.iter().map(|index| place(*index, n)).collect();
    let places = places?;
    for block in 0..outer {
        for at in &places {
            all.extend_from_slice(&operands[0].values[(block * n + at) * inner..][..inner]);
        }
    }
    Some(all)
}

fn scatter(operands: &[&Exact], (outer, n, inner): (usize, usize, usize)) -> Option<Vec<f64>> {
    let mut all = operands[0].values.clone();
    let indices = &operands[1].values;
    for block in 0..outer {
        for (number, index) in indices.iter().enumerate() {
            let at = place(*index, n)?;
            for column in 0..inner {
                all[(block * n + at) * inner + column] +=
                    operands[2].values[(block * indices.len() + number) * inner + column];
            }
        }
    }
    Some(all)
}

fn quantized(values: &[f64], (outer, n, _): (usize, usize, usize)) -> Vec<Vec<f64>> {
    let rows = (0..outer).map(|row| &values[row * n..(row + 1) * n]);
    let scales: Vec<f64> =
        rows.clone().map(|row| row.iter().map(|x| x.abs()).fold(0.0, maximum) / 127.0).collect();
    let quantised = rows.zip(&scales).flat_map(|(row, scale)| {
        row.iter().map(move |x| if *scale == 0.0 { 0.0 } else { (x / scale).round_ties_even() })
    });
    vec![quantised.collect(), scales]
}

/// Element `at` of random numbers. The words are those of every device; what is made of them is exact here.
fn drawn(distribution: Distribution, seed: u64, at: u64) -> f64 {
    let word = philox::block(at / 4, seed)[(at % 4) as usize];
    match distribution {
        Distribution::Uniform { low, high } => low + f64::from(word >> 8) / f64::from(1 << 24) * (high - low),
        Distribution::Normal { mean, deviation } => {
            let block = philox::block(at / 2, seed);
            let [first, second] = [0, 1].map(|which| block[(at % 2 * 2) as usize + which]);
            let radius = (-2.0 * (f64::from((first >> 8) + 1) / f64::from(1 << 24)).ln()).sqrt();
            mean + deviation
                * radius
                * (std::f64::consts::TAU * f64::from(second >> 8) / f64::from(1 << 24)).cos()
        }
        Distribution::Integers { low, high } => {
            let range = (i64::from(high) - i64::from(low) + 1) as u64;
            f64::from(low) + ((u64::from(word) * range) >> 32) as f64
        }
    }
}
