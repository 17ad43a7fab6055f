//! See [`holdfast_fuzz::proxy_header`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_fuzz::proxy_header::check(input));
