//! What commands print, where it cannot be printed, and where others chose the words.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    fs::{self, File},
    io,
    process::{Command, Output, Stdio},
};

fn portico(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portico"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(mut command: Command) -> Output {
    command.spawn().unwrap().wait_with_output().unwrap()
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// They say something on standard output, wherever they run.
const PRINTING: [&[&str]; 6] = [
    &["--help"],
    &["run", "--help"],
    &["doctor"],
    &["doctor", "-o", "json"],
    &["doctor", "-o", "yaml"],
    &["cleanup", "--pin-dir", "/sys/fs/bpf/portico-none"],
];

#[test]
fn a_full_disk_is_an_error() {
    for arguments in PRINTING {
        let mut command = portico(arguments);
        command.stdout(full());
        let output = run(command);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("No space left on device"), "{arguments:?}: {told}");
        assert!(!told.contains("panicked"), "{arguments:?}: {told}");
    }
}

#[test]
fn who_has_read_enough_is_no_error() {
    for arguments in PRINTING {
        let usual = run(portico(arguments));
        let mut command = portico(arguments);
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        command.stdout(writer);
        let output = run(command);
        assert_eq!(output.status.code(), usual.status.code(), "{arguments:?}: {output:?}");
        assert_eq!(output.stderr, usual.stderr, "{arguments:?}");
    }
}

#[test]
fn errors_that_cannot_be_told_end_a_command_as_usual() {
    for (arguments, code) in [
        (["get", "services", "--pin-dir", "/sys/fs/bpf/portico-none"], 1),
        (["run", "--config", "/nonexistent/config", "-v=1"], 1),
        (["run", "--mode", "x", "-v=1"], 2),
        (["run", "--proxy-mode", "x", "-v=1"], 2),
    ] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        for stderr in [Stdio::from(full()), writer.into()] {
            let mut command = portico(&arguments);
            command.stderr(stderr);
            assert_eq!(run(command).status.code(), Some(code), "{arguments:?}");
        }
    }
}

#[test]
fn what_others_wrote_steers_no_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("\u{1b}[31mconfig\n\u{202e}");
    let escaped = r"\u{1b}[31mconfig\n\u{202e}";
    let path = config.to_str().unwrap();
    let told = |arguments: &[&str]| {
        let output = run(portico(arguments));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && !told.contains(['\u{1b}', '\u{202e}', '\u{9b}']), "{told:?}");
        told
    };
    let missing = told(&["run", "--config", path]);
    assert!(missing.contains(escaped) && missing.lines().count() == 1, "{missing}");
    for (text, words) in [
        ("mode: \"\\e[31m\\n\\x9b\"", r#"mode: "\u{1b}[31m\n\u{9b}" is not one of"#),
        ("\"\\e[31m\\n\": 1", r"\u{1b}[31m\n: unknown field"),
        (&format!("mode: {}", "x".repeat(1_000_000)), "(1000000 bytes) is not one of"),
        (&format!("{}: 1", "x".repeat(1_000)), "unknown field"),
    ] {
        let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        fs::write(&config, format!("{head}{text}\n")).unwrap();
        let told = told(&["run", "--config", path]);
        assert!(told.contains(escaped) && told.contains(words) && told.len() < 4_096, "{told}");
        assert_eq!(told.lines().count(), 2, "{told}");
    }
    told(&["get", "\u{1b}[31m\u{9b}"]);
    told(&["get", "services", "--pin-dir", path]);
    told(&["run", "--api-server-url", "\u{1b}[31m\u{9b}"]);
}

#[test]
fn a_configuration_beyond_its_size_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config");
    File::create(&path).unwrap().set_len(10 << 30).unwrap();
    for path in [path.to_str().unwrap(), "/dev/zero"] {
        let output = run(portico(&["run", "--config", path]));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && told.contains("larger than 1024 KiB"), "{told}");
    }
}
