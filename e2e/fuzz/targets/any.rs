//! libFuzzer in front of a driver: the one that has the program's name.

#![no_main]

// What the product catches is not the end: libFuzzer's own hook would make it so. What it does not catch is, without a hook.
libfuzzer_sys::fuzz_target!(init: drop(std::panic::take_hook()), |data: &[u8]| {
    let driver = claw_fuzz::driver(env!("CARGO_BIN_NAME")).expect("every program here is named after a driver");
    (driver.run)(data);
});
