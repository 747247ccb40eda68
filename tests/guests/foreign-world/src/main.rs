//! A component, but a program and no plugin: it exports `wasi:cli/run`.

fn main() {
    println!("a plugin this is not");
}
