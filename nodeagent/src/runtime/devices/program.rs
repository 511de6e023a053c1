//! Rules as a program of the kernel's (eBPF), which it runs whenever somebody in a control group opens or makes a device
//! file. Pure.
//!
//! The program is given what is tried (the kind of device in the lower half of a word, the access in the upper), the major
//! and the minor number; it answers 1 or 0. Instruction set: RFC 9669.

use super::rules::{Devices, Kind, Rules};

/// Registers: the answer, what the kernel hands over, and three of ours.
const ANSWER: u8 = 0;
const GIVEN: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// Operations on 32 bits.
const LOAD: u8 = 0x61;
const MOVE: u8 = 0xb4;
const MOVE_REGISTER: u8 = 0xbc;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_IF_EQUAL: u8 = 0x16;
const JUMP_IF_NOT_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

/// Where the kernel puts what it hands over.
const WHAT_AT: i16 = 0;
const MAJOR_AT: i16 = 4;
const MINOR_AT: i16 = 8;

/// How the kernel numbers the kinds.
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;

/// All that can be tried.
const ALL: u32 = 7;

/// One instruction, as it lies in memory.
pub(super) type Instruction = u64;

/// Answers as the rules say.
pub(super) fn program(rules: &Rules) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD, KIND, GIVEN, WHAT_AT, 0),
        instruction(MOVE_REGISTER, ACCESS, KIND, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD, MAJOR, GIVEN, MAJOR_AT, 0),
        instruction(LOAD, MINOR, GIVEN, MINOR_AT, 0),
    ];
    for (devices, access) in &rules.exceptions {
        program.extend(exception(devices, *access, rules.is_open));
    }
    program.extend(answer(rules.is_open));
    program
}

/// Answers if it is about these devices, else goes on behind itself.
fn exception(devices: &Devices, access: u32, is_open: bool) -> Vec<Instruction> {
    let mut numbers = Vec::new();
    for (register, number) in [(MAJOR, devices.major), (MINOR, devices.minor)] {
        numbers.extend(number.map(|number| (register, number)));
    }
    // Where all is closed, everything that is tried must be allowed; where all is open, any of it may be forbidden.
    let (bits, skip) = if is_open { (access, JUMP_IF_EQUAL) } else { (ALL & !access, JUMP_IF_NOT_EQUAL) };
    // A test each for kind and numbers, three instructions for the access, two to answer.
    let length = 1 + numbers.len() + 3 + 2;
    let mut part: Vec<Instruction> = Vec::with_capacity(length);
    let past = |at: usize| i16::try_from(length - at - 1).unwrap_or(i16::MAX);
    let kind = if devices.kind == Kind::Block { BLOCK } else { CHARACTER };
    part.push(instruction(JUMP_IF_NOT_EQUAL, KIND, 0, past(0), kind));
    for (register, number) in numbers {
        part.push(instruction(JUMP_IF_NOT_EQUAL, register, 0, past(part.len()), number));
    }
    part.push(instruction(MOVE_REGISTER, ANSWER, ACCESS, 0, 0));
    part.push(instruction(AND, ANSWER, 0, 0, bits));
    part.push(instruction(skip, ANSWER, 0, past(part.len()), 0));
    part.extend(answer(!is_open));
    part
}

fn answer(is_allowed: bool) -> [Instruction; 2] {
    [instruction(MOVE, ANSWER, 0, 0, is_allowed.into()), instruction(EXIT, 0, 0, 0, 0)]
}

/// Operation, registers, offset and value, from the lowest byte up.
fn instruction(operation: u8, to: u8, from: u8, offset: i16, value: u32) -> Instruction {
    let registers = to | from << 4;
    u64::from(operation)
        | u64::from(registers) << 8
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(value) << 32
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What the kernel would do, so that rules are tried where no kernel would take the program.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let given = [kind | access << 16, major, minor];
        let mut registers = [0_u32; 6];
        let mut at = 0;
        loop {
            let [operation, pair, low, high, value @ ..] = program[at].to_le_bytes();
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let (offset, value) = (u16::from_le_bytes([low, high]), u32::from_le_bytes(value));
            at += 1;
            match operation {
                LOAD => registers[to] = given[usize::from(offset) / 4],
                MOVE => registers[to] = value,
                MOVE_REGISTER => registers[to] = registers[from],
                AND => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                JUMP_IF_EQUAL if registers[to] == value => at += usize::from(offset),
                JUMP_IF_NOT_EQUAL if registers[to] != value => at += usize::from(offset),
                JUMP_IF_EQUAL | JUMP_IF_NOT_EQUAL => {}
                EXIT => return registers[0] == 1,
                other => panic!("no instruction of ours: {other:#x}"),
            }
        }
    }

    fn program_of(rules: serde_json::Value) -> Vec<Instruction> {
        let rules: Vec<oci_spec::runtime::LinuxDeviceCgroup> = serde_json::from_value(rules).unwrap();
        program(&Rules::of(&rules))
    }

    #[test]
    fn a_closed_group_opens_its_own_devices_and_what_every_container_has() {
        let program = program_of(json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 195, "minor": 0, "access": "rw"},
        ]));
        let (make, read, write) = (1, 2, 4);
        for (kind, access, major, minor, is_allowed) in [
            (CHARACTER, read | write, 195, 0, true),
            (CHARACTER, read, 195, 0, true),
            (CHARACTER, read, 195, 1, false),
            (BLOCK, read, 195, 0, false),
            (CHARACTER, read | write, 1, 3, true),
            (CHARACTER, write, 1, 1, false),
            (CHARACTER, read | write, 136, 77, true),
            (BLOCK, make, 8, 0, true),
            (BLOCK, make | read, 8, 0, false),
        ] {
            let said = run(&program, kind, access, major, minor);
            assert_eq!(said, is_allowed, "{kind} {access} {major}:{minor}");
        }
    }

    #[test]
    fn an_open_group_closes_what_it_is_told_to() {
        let program = program_of(json!([
            {"allow": true, "access": "rwm"},
            {"allow": false, "type": "b", "major": 8, "access": "w"},
        ]));
        assert!(run(&program, CHARACTER, 7, 195, 0));
        assert!(run(&program, BLOCK, 2, 8, 1));
        assert!(!run(&program, BLOCK, 6, 8, 1), "any of what is tried is enough");
    }
}
