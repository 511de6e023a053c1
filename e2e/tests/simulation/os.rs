//! The operating system as threads of a simulation see it: clocks that stand still until they are moved, and entropy that
//! a seed decides.
//!
//! Time and randomness come from `Env` in controllers, but a whole process asks for more: tokio and the standard library
//! seed what they hash and choose by, uuids and time stamps are made deep inside the server and the agent, and
//! dependencies read clocks of their own. All of it ends at two functions of libc, so that is where it is taken over: this
//! program's own `getrandom` and `clock_gettime` stand in front of libc's. A thread that has not [`enter`]ed a simulation
//! gets the real ones, by system call. The alternative, a clock and dice handed through every layer of the server, would
//! still leave the dependencies out.
//!
//! Not covered, and not used in a simulation: ring's entropy (a raw system call of its own; TLS and signed tokens), and
//! threads that the process under test starts itself.

use std::{cell::Cell, time::Duration};

/// What a simulated thread sees. Nanoseconds.
#[derive(Clone, Copy)]
struct Machine {
    now: u64,
    /// What the wall clock shows beyond [`EPOCH_SECONDS`] and `now`.
    ahead: u64,
    entropy: u64,
    panics: u64,
}

thread_local! {
    static MACHINE: Cell<Option<Machine>> = const { Cell::new(None) };
}

/// When every simulation begins by the wall clock: 2030-01-01.
const EPOCH_SECONDS: u64 = 1_893_456_000;

/// How long the machine is up by then; nobody subtracts more from a moment.
const UPTIME_SECONDS: u64 = 10_000_000;

/// From now on this thread lives in a simulation. Call it first thing in a thread of its own: what was hashed before has
/// other seeds.
pub fn enter(seed: u64) {
    MACHINE.set(Some(Machine { now: 0, ahead: 0, entropy: seed, panics: 0 }));
}

/// Moves both clocks to this long after the beginning.
pub fn set_time(since_start: Duration) {
    change(|machine| machine.now = nanos(since_start));
}

/// Sets the wall clock forward, as somebody does who finds that it is wrong.
pub fn set_wall_clock_ahead(by: Duration) {
    change(|machine| machine.ahead += nanos(by));
}

/// Counts a panic, if this thread is simulated.
pub fn panicked() {
    change(|machine| machine.panics += 1);
}

/// How many panics there were, caught by tasks or not.
pub fn panics() -> u64 {
    MACHINE.get().map_or(0, |machine| machine.panics)
}

fn change(how: impl FnOnce(&mut Machine)) {
    if let Some(mut machine) = MACHINE.get() {
        how(&mut machine);
        MACHINE.set(Some(machine));
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("simulations last hours, not centuries")
}

/// SplitMix64, as `claw_e2e::dice`; here without an atomic, because this is called in the strangest places.
fn draw(machine: &mut Machine) -> u64 {
    machine.entropy = machine.entropy.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = machine.entropy;
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[expect(unsafe_code, reason = "stands in for libc's function of this name, with its signature")]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(
    buffer: *mut libc::c_void,
    length: libc::size_t,
    flags: libc::c_uint,
) -> libc::ssize_t {
    let Ok(Some(mut machine)) = MACHINE.try_with(Cell::get) else {
        // SAFETY: the kernel's own function, with the caller's arguments.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) } as libc::ssize_t;
    };
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller owns `length` bytes at `buffer`, by the contract of `getrandom(2)`.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<std::mem::MaybeUninit<u8>>(), length) };
    for chunk in bytes.chunks_mut(8) {
        for (byte, drawn) in chunk.iter_mut().zip(draw(&mut machine).to_le_bytes()) {
            byte.write(drawn);
        }
    }
    MACHINE.set(Some(machine));
    libc::ssize_t::try_from(length).unwrap_or(libc::ssize_t::MAX)
}

#[expect(unsafe_code, reason = "stands in for libc's function of this name, with its signature")]
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    let Ok(Some(machine)) = MACHINE.try_with(Cell::get) else {
        // SAFETY: the kernel's own function, with the caller's arguments.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as libc::c_int;
    };
    const SECOND: u64 = 1_000_000_000;
    let nanos = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => {
            EPOCH_SECONDS * SECOND + machine.now + machine.ahead
        }
        _ => UPTIME_SECONDS * SECOND + machine.now,
    };
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let shown = libc::timespec { tv_sec: signed(nanos / SECOND), tv_nsec: signed(nanos % SECOND) };
    // SAFETY: the caller owns a `timespec` at `time`, by the contract of `clock_gettime(2)`.
    unsafe { time.write(shown) };
    0
}
