//! See [`holdfast_fuzz::script`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_fuzz::script::check(input));
