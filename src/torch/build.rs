//! Compiles the C++ half of the bridge against libtorch and tells the linker where libtorch lies at run time.

use std::env;
use std::path::{Path, PathBuf};

const SOURCES: &[&str] = &[
    "devices.cc",
    "dropout.cc",
    "generators.cc",
    "optimizers.cc",
    "package.cc",
    "precision.cc",
    "recompute.cc",
    "script.cc",
    "update_rules.cc",
];

fn main() {
    for variable in ["LIBTORCH", "LIBTORCH_INCLUDE", "LIBTORCH_LIB"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let folder = Path::new("src/torch");
    println!(
        "cargo:rerun-if-changed={}",
        folder.join("bridge.rs").display()
    );
    println!(
        "cargo:rerun-if-changed={}",
        folder.join("bridge.h").display()
    );
    for source in SOURCES {
        println!("cargo:rerun-if-changed={}", folder.join(source).display());
    }

    let libtorch =
        PathBuf::from(env::var("LIBTORCH").unwrap_or_else(|_| ".libtorch/torch".to_owned()));
    let include = env::var("LIBTORCH_INCLUDE")
        .map_or_else(|_| libtorch.clone(), PathBuf::from)
        .join("include");
    let libraries = env::var("LIBTORCH_LIB")
        .map_or_else(|_| libtorch.clone(), PathBuf::from)
        .join("lib");
    assert!(
        include.join("ATen/ATen.h").exists(),
        "no libtorch headers in {}: run `make libtorch`, or set LIBTORCH to a libtorch 2.11.0",
        include.display()
    );
    let mut build = cxx_build::bridge(folder.join("bridge.rs"));
    build
        .std("c++17")
        .warnings(false)
        .include(&include)
        .include(include.join("torch/csrc/api/include"));
    for source in SOURCES {
        build.file(folder.join(source));
    }
    build.compile("host-torch-bridge");
    umbrella(&build);

    // The clone may move with its .libtorch; an installed LIBTORCH stays where it is.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../../.libtorch/torch/lib");
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../../../.libtorch/torch/lib");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", libraries.display());
}

/// An empty shared library that is called libtorch.so, as `package.rs` needs it.
fn umbrella(build: &cc::Build) {
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let source = folder.join("umbrella.cc");
    std::fs::write(&source, "").expect("an empty source can be written");
    let mut compiler = build.get_compiler().to_command();
    compiler
        .args(["-shared", "-nostdlib", "-Wl,-soname,libtorch.so", "-o"])
        .arg(folder.join("libtorch.so"))
        .arg(source);
    let status = compiler.status().expect("the compiler runs");
    assert!(status.success(), "an empty library cannot be linked");
}
