//! See [`holdfast_fuzz::redis_reply`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_fuzz::redis_reply::check(input));
