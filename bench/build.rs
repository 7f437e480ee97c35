//! Builds the benchmark's own eBPF programs and puts their object where `include_bytes!` finds it.
//!
//! `PORTICO_EBPF=DIR` takes the object `bench` from a directory instead, for machines without the eBPF toolchain.

#[path = "../lb/build/ebpf.rs"]
mod ebpf;

use std::{
    env,
    path::PathBuf,
    process::{Command, ExitCode},
};

const OBJECTS: [&str; 1] = ["bench"];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=../lb/build/ebpf.rs");
    println!("cargo::rerun-if-env-changed=PORTICO_EBPF");
    println!(
        "cargo::rustc-env=PORTICO_BENCH_RUSTC={}",
        compiler().unwrap_or_else(|| "an unknown rustc".to_owned())
    );
    ebpf::finish(build())
}

/// For the conditions of a report.
fn compiler() -> Option<String> {
    let output = Command::new(env::var_os("RUSTC")?).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn build() -> Result<(), String> {
    let out = PathBuf::from(ebpf::var("OUT_DIR")?);
    if let Some(dir) = env::var_os("PORTICO_EBPF").map(PathBuf::from) {
        println!("cargo::rerun-if-changed={}", dir.display());
        return ebpf::install(&OBJECTS, &dir, &out);
    }
    let root = PathBuf::from(ebpf::var("CARGO_MANIFEST_DIR")?).join("..");
    ebpf::build(&root, &["Cargo.lock", "bench/ebpf"], &["portico-bench-ebpf"], &[], &OBJECTS, &out)
}
