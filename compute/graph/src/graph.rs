//! A graph: inputs, then operations over what came before them, then what is wanted.

use crate::cost::cost;
use crate::infer::{Misfit, infer};
use crate::{Cost, Op, TensorType};
use std::collections::HashMap;

/// Operations in one graph: far more than a kernel job of a person has, and few enough to be checked in a millisecond.
const NODES_MAX: usize = 1_024;
/// Bytes of a name.
const NAME_MAX: usize = 63;

/// A value of a graph: an input, or a result of an operation. Only the graph that gave it knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(u32);

impl Value {
    /// Its place among all values of its graph: inputs first, then results in the order of operations.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// An operation in a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it is called in messages and by later operations.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// With what.
    pub operands: Vec<Value>,
    /// What comes out.
    pub results: Vec<Value>,
}

/// Operations over inputs, checked as they are added.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    types: Vec<TensorType>,
    inputs: Vec<Value>,
    nodes: Vec<Node>,
    outputs: Vec<Value>,
    names: HashMap<String, Value>,
}

/// Why something cannot be part of a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// An operation does not fit its operands.
    #[error("{name:?} ({op}): {why}")]
    Misfit {
        /// The operation's name in the graph.
        name: String,
        /// What it does.
        op: &'static str,
        /// What does not fit.
        why: String,
    },
    /// A name that is taken, empty or too long.
    #[error("the name {0:?} is taken, empty or longer than {NAME_MAX} bytes")]
    Name(String),
    /// A name that stands for nothing (yet).
    #[error("{name:?} reads {operand:?}, and no input or earlier operation has this name")]
    Unknown {
        /// Who reads it.
        name: String,
        /// What it reads.
        operand: String,
    },
    /// More operations than a graph may have.
    #[error("more than {NODES_MAX} inputs and operations")]
    TooMany,
}

impl Graph {
    /// An empty graph.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an input. Inputs come before operations, and are given when the graph runs, in this order.
    ///
    /// # Errors
    /// [`GraphError::Name`], [`GraphError::TooMany`].
    ///
    /// # Panics
    /// After the first operation was added: its values are numbered behind the inputs.
    pub fn input(&mut self, name: &str, of: TensorType) -> Result<Value, GraphError> {
        assert!(self.nodes.is_empty(), "inputs are added before operations");
        self.room(name)?;
        let value = self.value(of);
        self.names.insert(name.to_owned(), value);
        self.inputs.push(value);
        Ok(value)
    }

    /// Adds an operation, and returns its results: one, or two for `TopK` and `Quantize`. The first is known by the
    /// operation's name, the second by that name with `.indices` or `.scale` after it.
    ///
    /// # Errors
    /// [`GraphError::Misfit`], [`GraphError::Name`], [`GraphError::TooMany`].
    ///
    /// # Panics
    /// If an operand is a value of another graph with more values.
    pub fn add(&mut self, name: &str, op: Op, operands: &[Value]) -> Result<Vec<Value>, GraphError> {
        self.room(name)?;
        let types: Vec<&TensorType> = operands.iter().map(|operand| self.of(*operand)).collect();
        let inferred = infer(&op, &types).map_err(|Misfit(why)| GraphError::Misfit {
            name: name.to_owned(),
            op: op.name(),
            why,
        })?;
        let results: Vec<Value> = inferred.into_iter().map(|of| self.value(of)).collect();
        self.names.insert(name.to_owned(), results[0]);
        if let Some(second) = results.get(1) {
            let suffix = if op == Op::Quantize { "scale" } else { "indices" };
            self.names.insert(format!("{name}.{suffix}"), *second);
        }
        self.nodes.push(Node {
            name: name.to_owned(),
            op,
            operands: operands.to_vec(),
            results: results.clone(),
        });
        Ok(results)
    }

    /// Says that a value is wanted. Outputs come in the order in which they were named; the same one may come twice.
    pub fn output(&mut self, value: Value) {
        self.outputs.push(value);
    }

    /// The value that a name stands for, as `reader` reads it.
    ///
    /// # Errors
    /// [`GraphError::Unknown`].
    pub fn named(&self, reader: &str, operand: &str) -> Result<Value, GraphError> {
        let unknown = || GraphError::Unknown { name: reader.to_owned(), operand: operand.to_owned() };
        self.names.get(operand).copied().ok_or_else(unknown)
    }

    /// The type of a value.
    #[must_use]
    pub fn of(&self, value: Value) -> &TensorType {
        &self.types[value.index()]
    }

    /// The types of all values.
    #[must_use]
    pub fn types(&self) -> &[TensorType] {
        &self.types
    }

    /// What is given.
    #[must_use]
    pub fn inputs(&self) -> &[Value] {
        &self.inputs
    }

    /// What is done, in order.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What is wanted.
    #[must_use]
    pub fn outputs(&self) -> &[Value] {
        &self.outputs
    }

    /// The cost of one operation.
    #[must_use]
    pub fn cost_of(&self, node: &Node) -> Cost {
        let operands: Vec<&TensorType> = node.operands.iter().map(|operand| self.of(*operand)).collect();
        let results: Vec<TensorType> = node.results.iter().map(|result| self.of(*result).clone()).collect();
        cost(&node.op, &operands, &results)
    }

    /// The cost of all operations, each for itself.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.nodes.iter().map(|node| self.cost_of(node)).fold(Cost::default(), |sum, one| sum + one)
    }

    fn room(&self, name: &str) -> Result<(), GraphError> {
        if self.inputs.len() + self.nodes.len() >= NODES_MAX {
            return Err(GraphError::TooMany);
        }
        let free = !name.is_empty()
            && name.len() <= NAME_MAX
            && !name.contains('.')
            && !self.names.contains_key(name);
        if free { Ok(()) } else { Err(GraphError::Name(name.to_owned())) }
    }

    fn value(&mut self, of: TensorType) -> Value {
        let value = Value(u32::try_from(self.types.len()).expect("NODES_MAX operations have few results"));
        self.types.push(of);
        value
    }
}
