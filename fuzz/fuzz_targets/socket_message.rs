//! See [`holdfast_fuzz::socket_message`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_fuzz::socket_message::check(input));
