//! Asks for nearly all that 32 bits can address before the first instruction runs.

fn main() {
    println!("cargo:rustc-link-arg=--initial-memory=4294901760");
}
