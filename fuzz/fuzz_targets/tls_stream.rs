//! See [`holdfast_fuzz::tls_stream`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_fuzz::tls_stream::check(input));
