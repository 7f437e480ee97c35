//! Compiles eBPF programs of this workspace, in build scripts.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const TARGET: &str = "bpfel-unknown-none";
const HELP: &str = "`make build` installs what is missing; see \"Building\" in README.md";

/// Says to cargo why a build failed, if it did.
pub(crate) fn finish(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            for line in reason.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Builds packages of the workspace at `root` for eBPF, each with these features, and puts their binaries, `objects`, into
/// `out`. A change below one of `sources`, relative to the root, makes cargo ask again.
pub(crate) fn build(
    root: &Path,
    sources: &[&str],
    packages: &[&str],
    features: &[&str],
    objects: &[&str],
    out: &Path,
) -> Result<(), String> {
    println!("cargo::rerun-if-env-changed=PATH");
    for part in sources {
        println!("cargo::rerun-if-changed={}", root.join(part).display());
    }
    if !runs(Command::new("bpf-linker").arg("--version")) {
        return Err(format!("bpf-linker is not in PATH: it links the eBPF programs; {HELP}"));
    }
    let target_dir = out.join("ebpf");
    let mut cargo = Compiler::find()?.cargo();
    cargo
        .current_dir(root)
        .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .args(packages.iter().flat_map(|name| ["--package", name]))
        .args(
            features
                .iter()
                .flat_map(|feature| packages.iter().map(move |name| format!("--features={name}/{feature}"))),
        )
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&var("CARGO_CFG_TARGET_ARCH")?));
    let output =
        cargo.output().map_err(|error| format!("cannot run cargo for the eBPF programs: {error}"))?;
    if !output.status.success() {
        return Err(format!("the eBPF programs do not build:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    install(objects, &target_dir.join(TARGET).join("release"), out)
}

/// A variable that cargo sets.
pub(crate) fn var(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("cargo did not set {name}: {error}"))
}

/// BTF describes the maps to the loader; it is made of debug information.
fn flags(arch: &str) -> String {
    // The third version of the instruction set, since Linux 5.1, has 32-bit arithmetic.
    [&format!("--cfg=bpf_target_arch=\"{arch}\""), "-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3"]
        .join("\x1f")
}

/// Copies objects from one directory to another.
pub(crate) fn install(objects: &[&str], from: &Path, to: &Path) -> Result<(), String> {
    for name in objects {
        let object = from.join(name);
        fs::copy(&object, to.join(name))
            .map_err(|error| format!("cannot copy {}: {error}", object.display()))?;
    }
    Ok(())
}

fn runs(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// A compiler that knows the eBPF target.
enum Compiler {
    /// One that ships `core` for it, as Debian's `rustc-web` with `libstd-rust-web-dev-bpf`.
    Ready(PathBuf),
    /// Nightly by rustup, which compiles `core` from `rust-src`.
    Nightly,
}

impl Compiler {
    fn find() -> Result<Self, String> {
        let ready =
            ["/usr/bin/rustc", "rustc"].map(PathBuf::from).into_iter().find(|rustc| ships_core(rustc));
        if let Some(rustc) = ready {
            return Ok(Self::Ready(rustc));
        }
        let source = sysroot(Command::new("rustup").args(["run", "nightly", "rustc"]))
            .is_some_and(|root| root.join("lib/rustlib/src/rust/library/core").is_dir());
        if source {
            return Ok(Self::Nightly);
        }
        Err(format!(
            "no compiler for {TARGET}: neither Debian's rustc-web with libstd-rust-web-dev-bpf, nor rustup's nightly \
             with rust-src; {HELP}"
        ))
    }

    fn cargo(&self) -> Command {
        let mut cargo;
        match self {
            Self::Ready(rustc) => {
                cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                // aya-ebpf needs no unstable language feature, but the target is a tier 3 one.
                cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
            }
            Self::Nightly => {
                cargo = Command::new("rustup");
                cargo.args(["run", "nightly", "cargo"]).env_remove("RUSTC");
            }
        }
        // What cargo, or clippy in its place, set for the host's compiler.
        for name in ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
            cargo.env_remove(name);
        }
        if matches!(self, Self::Nightly) {
            cargo.args(["-Z", "build-std=core"]);
        }
        cargo
    }
}

fn ships_core(rustc: &Path) -> bool {
    let libraries =
        sysroot(&mut Command::new(rustc)).map(|root| root.join("lib/rustlib").join(TARGET).join("lib"));
    libraries.and_then(|dir| fs::read_dir(dir).ok()).is_some_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

fn sysroot(rustc: &mut Command) -> Option<PathBuf> {
    let output = rustc.args(["--print", "sysroot"]).output().ok().filter(|output| output.status.success())?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}
