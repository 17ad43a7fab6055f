//! See [`holdfast_fuzz::channel_body`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_fuzz::channel_body::check(input));
