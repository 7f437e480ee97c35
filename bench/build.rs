//! Builds the benchmark's own eBPF programs and puts their object where `include_bytes!` finds it.
//!
//! `PORTICO_EBPF=DIR` takes the object `bench` from a directory instead, for machines without the eBPF toolchain.

#[path = "../lb/build/ebpf.rs"]
mod ebpf;

use std::{env, path::PathBuf, process::ExitCode};

const OBJECTS: [&str; 1] = ["bench"];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=../lb/build/ebpf.rs");
    println!("cargo::rerun-if-env-changed=PORTICO_EBPF");
    ebpf::finish(build())
}

fn build() -> Result<(), String> {
    let out = PathBuf::from(ebpf::var("OUT_DIR")?);
    if let Some(dir) = env::var_os("PORTICO_EBPF").map(PathBuf::from) {
        println!("cargo::rerun-if-changed={}", dir.display());
        return ebpf::install(&OBJECTS, &dir, &out);
    }
    let root = PathBuf::from(ebpf::var("CARGO_MANIFEST_DIR")?).join("..");
    ebpf::build(&root, &["Cargo.lock", "bench/ebpf"], &["portico-bench-ebpf"], &OBJECTS, &out)
}
