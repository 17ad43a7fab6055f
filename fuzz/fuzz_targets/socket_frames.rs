//! See [`holdfast_fuzz::socket_frames`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_fuzz::socket_frames::check(input));
