//! Builds the eBPF programs and puts their objects where `include_bytes!` finds them.
//!
//! `PORTICO_EBPF=DIR` takes the objects `xdp`, `tc` and `sockops` from a directory instead, for machines without the
//! eBPF toolchain.

#[path = "build/ebpf.rs"]
mod ebpf;

use std::{env, path::PathBuf, process::ExitCode};

const OBJECTS: [&str; 3] = ["xdp", "tc", "sockops"];
const PACKAGES: [&str; 3] = ["portico-xdp", "portico-tc", "portico-sockops"];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build/ebpf.rs");
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
    let features: &[&str] =
        if env::var_os("CARGO_FEATURE_NEXT_SCHEMA").is_some() { &["next-schema"] } else { &[] };
    ebpf::build(&root, &["Cargo.lock", "xdp", "tc", "sockops"], &PACKAGES, features, &OBJECTS, &out)
}
