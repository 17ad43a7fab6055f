//! See [`holdfast_fuzz::peer_answer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_fuzz::peer_answer::check(input));
