//! See [`holdfast_fuzz::set_body`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_fuzz::set_body::check(input));
