//! From a graph to steps: chains of element-wise operations become one, views move nothing, and memory is given back early.
//!
//! Pure: knows no device. What a backend may rely on is in [`Step`]; beside that, no step has an empty result, and an empty
//! operand comes to `Gather` only, which refuses every index into it.

mod program;
#[cfg(test)]
mod tests;

pub use program::{Instruction, Program};

use crate::backend::{Rows, Step};
use crate::memory::{Buffer, Layout, View};
use crate::reference::round;
use claw_graph::{DType, Distribution, Graph, Node, Op, Reduction, Shape, TensorType, Value};
use program::{INSTRUCTIONS_MAX, OPERANDS_MAX};

/// A buffer that a plan speaks of: the graph's inputs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub usize);

/// A tensor in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub slot: Slot,
    pub of: TensorType,
    pub layout: Layout,
}

/// A step, and on what.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The operation that it does, or ends with, as the graph calls it.
    pub name: String,
    pub step: Step,
    pub operands: Vec<Place>,
    pub results: Vec<Place>,
    /// Which of those that take indices it is.
    pub fault: Option<usize>,
}

/// How a graph is carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub inputs: Vec<TensorType>,
    /// Bytes of each buffer.
    pub slots: Vec<usize>,
    pub steps: Vec<Planned>,
    pub outputs: Vec<Place>,
    /// All types that occur.
    pub dtypes: Vec<DType>,
    created: Vec<Vec<Slot>>,
    freed: Vec<Vec<Slot>>,
}

impl Plan {
    /// The plan of a graph. Outputs that are views of something else are made whole.
    pub fn of(graph: &Graph) -> Self {
        let mut planner = Planner::new(graph);
        for node in graph.nodes() {
            planner.node(node);
        }
        let outputs = graph.outputs().iter().map(|value| planner.whole(*value, "output")).collect();
        planner.finish(outputs)
    }

    /// Buffers that must be there before a step: their first use is as its results.
    pub fn created_by(&self, step: usize) -> &[Slot] {
        &self.created[step]
    }

    /// Buffers that no later step and no output needs.
    pub fn freed_after(&self, step: usize) -> &[Slot] {
        &self.freed[step]
    }
}

impl Place {
    /// Itself on a device.
    pub fn view(&self, buffers: &[Option<Buffer>]) -> View {
        let buffer = buffers[self.slot.0].clone().expect("buffers live from their first to their last use");
        View { buffer, of: self.of.clone(), layout: self.layout.clone() }
    }

    /// Row after row from the beginning of its buffer.
    fn is_whole(&self) -> bool {
        self.layout.offset == 0 && self.layout.is_rows(&self.of.shape)
    }

    /// Repeated to a shape that its own can be broadcast to: axes that stretch have stride 0.
    fn stretched(&self, shape: &Shape) -> Self {
        let missing = shape.rank() - self.of.shape.rank();
        let stride = |axis: usize| {
            let own = axis.checked_sub(missing)?;
            (self.of.shape[own] == shape[axis]).then_some(self.layout.strides[own])
        };
        let strides = (0..shape.rank()).map(|axis| stride(axis).unwrap_or(0)).collect();
        let layout = Layout { offset: self.layout.offset, strides };
        Self { slot: self.slot, of: TensorType::new(self.of.dtype, shape.clone()), layout }
    }
}

/// What the planner knows of a value.
#[derive(Clone)]
enum Known {
    /// Where it is.
    At(Place),
    /// How each of its elements is made; nobody has made them yet.
    Deferred(Expression),
}

/// A program and what it reads, all of the shape of its result.
#[derive(Clone)]
struct Expression {
    program: Program,
    operands: Vec<Place>,
}

struct Planner<'graph> {
    graph: &'graph Graph,
    /// How often each value is read.
    uses: Vec<usize>,
    known: Vec<Option<Known>>,
    slots: Vec<usize>,
    steps: Vec<Planned>,
}

impl<'graph> Planner<'graph> {
    fn new(graph: &'graph Graph) -> Self {
        let mut uses = vec![0; graph.types().len()];
        let read = graph.nodes().iter().flat_map(|node| &node.operands).chain(graph.outputs());
        read.for_each(|value| uses[value.index()] += 1);
        let mut planner = Self {
            graph,
            uses,
            known: vec![None; graph.types().len()],
            slots: Vec::new(),
            steps: Vec::new(),
        };
        for input in graph.inputs() {
            let place = planner.slot(graph.of(*input));
            planner.known[input.index()] = Some(Known::At(place));
        }
        planner
    }

    fn finish(self, outputs: Vec<Place>) -> Plan {
        let inputs = self.graph.inputs().len();
        let mut created = vec![Vec::new(); self.steps.len()];
        let mut freed = vec![Vec::new(); self.steps.len()];
        for slot in inputs..self.slots.len() {
            let uses = |step: &Planned| {
                step.operands.iter().chain(&step.results).any(|place| place.slot == Slot(slot))
            };
            if let Some(first) = self.steps.iter().position(uses) {
                created[first].push(Slot(slot));
            }
            let wanted = outputs.iter().any(|place| place.slot == Slot(slot));
            if let Some(last) = self.steps.iter().rposition(uses).filter(|_| !wanted) {
                freed[last].push(Slot(slot));
            }
        }
        let mut dtypes: Vec<DType> = self.graph.types().iter().map(|of| of.dtype).collect();
        dtypes.sort_unstable();
        dtypes.dedup();
        let inputs = self.graph.inputs().iter().map(|input| self.graph.of(*input).clone()).collect();
        Plan { inputs, slots: self.slots, steps: self.steps, outputs, dtypes, created, freed }
    }

    /// A new buffer for a tensor.
    fn slot(&mut self, of: &TensorType) -> Place {
        self.slots.push(of.size_bytes());
        Place { slot: Slot(self.slots.len() - 1), of: of.clone(), layout: Layout::rows(&of.shape) }
    }

    fn node(&mut self, node: &Node) {
        let known = match &node.op {
            Op::Unary(_) | Op::Binary(_) | Op::Where => Known::Deferred(self.element_wise(node)),
            Op::Fill { value, dtype, .. } if dtype.is_float() => Known::Deferred(Expression {
                program: Program::literal(round(*dtype, *value) as f32),
                operands: Vec::new(),
            }),
            Op::Reshape(_) | Op::Permute(_) | Op::Broadcast(_) | Op::Slice { .. } => {
                Known::At(self.seen(node))
            }
            Op::Cast(dtype) if *dtype == self.graph.of(node.operands[0]).dtype => {
                Known::At(self.at(node.operands[0], &node.name))
            }
            _ => return self.step(node),
        };
        self.known[node.results[0].index()] = Some(known);
    }

    /// An element-wise operation, with those before it that only it reads.
    fn element_wise(&mut self, node: &Node) -> Expression {
        let shape = &self.graph.of(node.results[0]).shape;
        let mut whole = Expression { program: Program::default(), operands: Vec::new() };
        // The others need a place each at worst.
        let mut later = node.operands.len();
        let mut registers = Vec::with_capacity(node.operands.len());
        for value in &node.operands {
            later -= 1;
            let expression = self.expression(*value, shape, &whole, later, &node.name);
            registers.push(whole.append(&expression));
        }
        whole.program.push(match (&node.op, registers.as_slice()) {
            (Op::Unary(unary), [x]) => Instruction::Unary(*unary, *x),
            (Op::Binary(binary), [a, b]) => Instruction::Binary(*binary, *a, *b),
            (_, [condition, a, b]) => Instruction::Where(*condition, *a, *b),
            _ => unreachable!("the graph checked how many operands there are"),
        });
        whole
    }

    /// How an operand is made, for a reader of this shape: in the reader's program where that costs nothing, else from memory.
    fn expression(
        &mut self,
        value: Value,
        shape: &Shape,
        whole: &Expression,
        later: usize,
        name: &str,
    ) -> Expression {
        let Some(Known::Deferred(deferred)) = &self.known[value.index()] else {
            return self.loaded(value, shape, name);
        };
        let is_constant = deferred.operands.is_empty();
        let is_only_for_this = self.uses[value.index()] == 1 && self.graph.of(value).shape == *shape;
        let operands = whole.operands.len() + deferred.operands.len() + later;
        // Three more for what is loaded later and for the operation itself.
        let instructions = whole.program.instructions.len() + deferred.program.instructions.len() + 3;
        if (is_constant || is_only_for_this) && operands <= OPERANDS_MAX && instructions <= INSTRUCTIONS_MAX {
            return deferred.clone();
        }
        self.loaded(value, shape, name)
    }

    fn loaded(&mut self, value: Value, shape: &Shape, name: &str) -> Expression {
        let place = self.at(value, name).stretched(shape);
        Expression { program: Program::load(), operands: vec![place] }
    }

    /// Where a value is; it is made now if it was not yet.
    fn at(&mut self, value: Value, name: &str) -> Place {
        let known = self.known[value.index()].clone().expect("operands come before operations");
        let place = match known {
            Known::At(place) => place,
            Known::Deferred(expression) => {
                let result = self.slot(self.graph.of(value));
                self.push(name, Step::Map(expression.program), expression.operands, vec![result.clone()]);
                result
            }
        };
        self.known[value.index()] = Some(Known::At(place.clone()));
        place
    }

    /// Where a value is, row after row from the beginning of a buffer.
    fn whole(&mut self, value: Value, name: &str) -> Place {
        let place = self.at(value, name);
        if place.is_whole() {
            return place;
        }
        let copy = self.slot(&place.of);
        self.push(name, Step::Copy, vec![place], vec![copy.clone()]);
        // Later readers find it whole.
        self.known[value.index()] = Some(Known::At(copy.clone()));
        copy
    }

    /// The operand, seen otherwise.
    fn seen(&mut self, node: &Node) -> Place {
        let of = self.graph.of(node.results[0]).clone();
        let place = self.at(node.operands[0], &node.name);
        let layout = match &node.op {
            Op::Permute(order) => Layout {
                offset: place.layout.offset,
                strides: order.iter().map(|axis| place.layout.strides[*axis]).collect(),
            },
            Op::Broadcast(shape) => return place.stretched(shape),
            Op::Slice { axis, start, .. } => {
                let offset = place.layout.offset + start * place.layout.strides[*axis];
                Layout { offset, strides: place.layout.strides }
            }
            _ if place.layout.is_rows(&place.of.shape) => {
                Layout { offset: place.layout.offset, strides: of.shape.strides() }
            }
            _ => {
                let whole = self.whole(node.operands[0], &node.name);
                return Place { slot: whole.slot, layout: Layout::rows(&of.shape), of };
            }
        };
        Place { slot: place.slot, of, layout }
    }

    /// An operation that is a step of its own.
    fn step(&mut self, node: &Node) {
        let results: Vec<Place> =
            node.results.iter().map(|result| self.slot(&self.graph.of(*result).clone())).collect();
        for (value, place) in node.results.iter().zip(&results) {
            self.known[value.index()] = Some(Known::At(place.clone()));
        }
        match &node.op {
            Op::Concat { axis } => self.concat(node, *axis, &results[0]),
            Op::MatMul { transpose_lhs, transpose_rhs, .. } => {
                self.matmul(node, [*transpose_lhs, *transpose_rhs], results)
            }
            _ => {
                let operands: Vec<Place> =
                    node.operands.iter().map(|operand| self.whole(*operand, &node.name)).collect();
                self.work_or_less(node, operands, results);
            }
        }
    }

    /// An operation's own step; where operands are empty and results are not, what that comes to.
    fn work_or_less(&mut self, node: &Node, mut operands: Vec<Place>, mut results: Vec<Place>) {
        let is_empty = |place: &Place| place.of.shape.elements() == 0;
        let literal = |value| Step::Map(Program::literal(value));
        match &node.op {
            Op::Reduce { reduction, .. } if is_empty(&operands[0]) => {
                let value = match reduction {
                    Reduction::Sum => 0.0,
                    Reduction::Prod => 1.0,
                    _ => f32::NAN,
                };
                self.push(&node.name, literal(value), Vec::new(), results);
            }
            Op::CountDifferent { .. } if is_empty(&operands[0]) => {
                self.push(&node.name, whole_number(0), Vec::new(), results);
            }
            Op::Quantize if is_empty(&operands[0]) => {
                self.push(&node.name, literal(0.0), Vec::new(), results.split_off(1));
            }
            Op::ScatterAdd { .. } if is_empty(&operands[1]) => {
                operands.truncate(1);
                self.push(&node.name, Step::Copy, operands, results);
            }
            _ => self.push(&node.name, self.work(node), operands, results),
        }
    }

    fn work(&self, node: &Node) -> Step {
        let along = |axis: usize| {
            let (outer, n, inner) = self.graph.of(node.operands[0]).shape.around(axis);
            Rows { outer, n, inner }
        };
        let along_last = || along(self.graph.of(node.operands[0]).shape.rank() - 1);
        match node.op.clone() {
            // Of i32; those of floats are part of a program.
            Op::Fill { value, .. } => whole_number(value as i32),
            Op::Random { distribution, seed, .. } => Step::Random { distribution, seed },
            Op::Cast(_) => Step::Cast,
            Op::Reduce { reduction, axis, .. } => Step::Reduce { reduction, rows: along(axis) },
            Op::ArgReduce { largest, axis, .. } => Step::ArgReduce { largest, rows: along(axis) },
            Op::CountDifferent { axis, .. } => Step::CountDifferent { rows: along(axis) },
            Op::Softmax { axis, log } => Step::Softmax { log, rows: along(axis) },
            Op::LayerNorm { epsilon } | Op::RmsNorm { epsilon } => {
                Step::Norm { epsilon: epsilon as f32, rows: along_last() }
            }
            Op::Rotary { base, offset } => Step::Rotary { base, offset },
            Op::Attention { causal, scale } => {
                let width = self.graph.of(node.operands[0]).shape[3];
                Step::Attention { causal, scale: scale.unwrap_or_else(|| 1.0 / (width as f64).sqrt()) as f32 }
            }
            Op::TopK { k, largest } => Step::TopK { k, largest, rows: along_last() },
            Op::Gather { axis } => Step::Gather { rows: along(axis) },
            Op::ScatterAdd { axis } => Step::ScatterAdd { rows: along(axis) },
            Op::Quantize => Step::Quantize { rows: along_last() },
            Op::Dequantize(_) => Step::Dequantize { rows: along_last() },
            other => unreachable!("{other} is no step of its own"),
        }
    }

    /// Each operand is copied to its part of the result.
    fn concat(&mut self, node: &Node, axis: usize, result: &Place) {
        let mut start = 0;
        for operand in &node.operands {
            let part = self.at(*operand, &node.name);
            let layout = Layout {
                offset: start * result.layout.strides[axis],
                strides: result.layout.strides.clone(),
            };
            start += part.of.shape[axis];
            let target = Place { slot: result.slot, of: part.of.clone(), layout };
            self.push(&node.name, Step::Copy, vec![part], vec![target]);
        }
    }

    fn matmul(&mut self, node: &Node, transposed: [bool; 2], results: Vec<Place>) {
        let shape = results[0].of.shape.clone();
        let batch = &shape[..shape.rank() - 2];
        let mut operands = Vec::with_capacity(2);
        for (value, transposed) in node.operands.iter().zip(transposed) {
            let mut place = self.whole_or_matrix(*value, &node.name);
            let rank = place.of.shape.rank();
            let [rows, columns] = [place.of.shape[rank - 2], place.of.shape[rank - 1]];
            let wanted = Shape::new([batch, &[rows, columns]].concat())
                .expect("no larger than the operand or the result");
            place = place.stretched(&wanted);
            if transposed {
                let last = wanted.rank() - 1;
                place.layout.strides.swap(last - 1, last);
                let swapped = [batch, &[columns, rows]].concat();
                place.of.shape = Shape::new(swapped).expect("the same extents in another order");
            }
            operands.push(place);
        }
        let is_empty = operands[0].of.shape.last() == Some(&0);
        let step = if is_empty { Step::Map(Program::literal(0.0)) } else { Step::MatMul };
        self.push(&node.name, step, if is_empty { Vec::new() } else { operands }, results);
    }

    /// A place whose matrices lie row after row or column after column from the beginning of a buffer; copied if they do not.
    fn whole_or_matrix(&mut self, value: Value, name: &str) -> Place {
        let place = self.at(value, name);
        let rank = place.of.shape.rank();
        let mut turned = place.clone();
        turned.layout.strides.swap(rank - 2, rank - 1);
        let mut extents = place.of.shape.to_vec();
        extents.swap(rank - 2, rank - 1);
        turned.of.shape = Shape::new(extents).expect("the same extents in another order");
        if turned.is_whole() { place } else { self.whole(value, name) }
    }

    /// Adds a step, unless there is nothing to do.
    fn push(&mut self, name: &str, step: Step, operands: Vec<Place>, results: Vec<Place>) {
        if results.iter().any(|result| result.of.shape.elements() > 0) {
            let takes_indices = matches!(step, Step::Gather { .. } | Step::ScatterAdd { .. });
            let fault =
                takes_indices.then(|| self.steps.iter().filter(|planned| planned.fault.is_some()).count());
            self.steps.push(Planned { name: name.to_owned(), step, operands, results, fault });
        }
    }
}

/// The same whole number everywhere: one is all there is to draw.
const fn whole_number(value: i32) -> Step {
    Step::Random { distribution: Distribution::Integers { low: value, high: value }, seed: 0 }
}

impl Expression {
    /// Puts another one behind this; operands that are the same are read once.
    fn append(&mut self, other: &Self) -> usize {
        let mut places = Vec::with_capacity(other.operands.len());
        for operand in &other.operands {
            let found = self.operands.iter().position(|own| own == operand);
            places.push(found.unwrap_or_else(|| {
                self.operands.push(operand.clone());
                self.operands.len() - 1
            }));
        }
        self.program.append(&other.program, &places)
    }
}
