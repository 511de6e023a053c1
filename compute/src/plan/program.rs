//! A chain of element-wise operations as one program, so that it reads and writes memory once.

use claw_graph::{Binary, Unary};

/// Operands of one program. Devices promise eight buffers to a kernel; two are for the result and for the kernel's own figures.
pub const OPERANDS_MAX: usize = 6;
/// Instructions of one program: what registers of a GPU hold without spilling.
pub const INSTRUCTIONS_MAX: usize = 48;

/// A value within a program: the number of the instruction that made it.
pub type Register = usize;

/// Instructions, each of which makes one value, in `f32`. The last is the result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Program {
    pub instructions: Vec<Instruction>,
}

/// One step for one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// The element of an operand.
    Load(usize),
    /// The same number for all elements: the bits of an `f32`.
    Literal(u32),
    Unary(Unary, Register),
    Binary(Binary, Register, Register),
    /// The second where the first is not zero, else the third.
    Where(Register, Register, Register),
}

impl Program {
    /// A program that hands on its operand.
    pub fn load() -> Self {
        Self { instructions: vec![Instruction::Load(0)] }
    }

    pub fn literal(value: f32) -> Self {
        Self { instructions: vec![Instruction::Literal(value.to_bits())] }
    }

    /// How many operands it reads.
    pub fn operands(&self) -> usize {
        let loads = self.instructions.iter().filter_map(|instruction| match instruction {
            Instruction::Load(operand) => Some(operand + 1),
            _ => None,
        });
        loads.max().unwrap_or(0)
    }

    /// Puts another program behind this one; its operand `i` is this one's `operands[i]`. Returns where its result is.
    /// An operand that is read already is not read again.
    pub fn append(&mut self, other: &Self, operands: &[usize]) -> Register {
        let mut moved = Vec::with_capacity(other.instructions.len());
        for instruction in &other.instructions {
            moved.push(match *instruction {
                Instruction::Load(operand) => self.load_of(operands[operand]),
                Instruction::Literal(_) => self.push(*instruction),
                Instruction::Unary(unary, x) => self.push(Instruction::Unary(unary, moved[x])),
                Instruction::Binary(binary, a, b) => {
                    self.push(Instruction::Binary(binary, moved[a], moved[b]))
                }
                Instruction::Where(condition, a, b) => {
                    self.push(Instruction::Where(moved[condition], moved[a], moved[b]))
                }
            });
        }
        *moved.last().expect("a program has a result")
    }

    pub fn push(&mut self, instruction: Instruction) -> Register {
        self.instructions.push(instruction);
        self.instructions.len() - 1
    }

    fn load_of(&mut self, operand: usize) -> Register {
        let load = Instruction::Load(operand);
        let found = self.instructions.iter().position(|instruction| *instruction == load);
        found.unwrap_or_else(|| self.push(load))
    }
}
