//! Set-up, demo, test and benchmark commands of the wasmhook repository.
fn main() {}
