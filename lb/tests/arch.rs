//! Rules about which part of the source may know which other.
#![expect(clippy::unwrap_used, reason = "a test that cannot read the source has failed")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Modules that compute and do nothing else.
const PURE: [&str; 3] = ["src/config", "src/model", "src/plan"];

/// Paths they do not name. The last segment may end in `*`.
const FORBIDDEN: [&str; 16] = [
    "tokio",
    "aya",
    "kube",
    "k8s_openapi",
    "nix",
    "libc",
    "rtnetlink",
    "netlink_*",
    "std::fs",
    "std::env",
    "std::process",
    "std::net::Tcp*",
    "std::net::Udp*",
    "std::time::Instant",
    "std::time::SystemTime",
    "crate::driver",
];

const WHY: &str = "config, model and plan are pure: they get values and return values, so that each decision can be tested \
                   without a kernel, a cluster or a clock, and any path to a state leads to the same plan. IO belongs \
                   to driver, Kubernetes types to convert and source; the time is an argument (a Duration).";

#[test]
fn config_model_and_plan_do_no_io() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files: Vec<PathBuf> = PURE.iter().flat_map(|dir| rust_files(&root.join(dir))).collect();
    assert!(files.len() > 10, "nothing to check under {PURE:?}: {files:?}");
    let mut violations = Vec::new();
    for file in &files {
        let source = fs::read_to_string(file).unwrap();
        for path in paths(&source).into_iter().filter(|path| FORBIDDEN.iter().any(|f| falls_under(path, f))) {
            violations.push(format!(
                "{} names {}",
                file.strip_prefix(root).unwrap().display(),
                path.join("::")
            ));
        }
    }
    assert!(violations.is_empty(), "{}\n{WHY}", violations.join("\n"));
}

#[test]
fn paths_are_found_wherever_they_hide() {
    let named = |source: &str| {
        let mut hits: Vec<String> = paths(source)
            .iter()
            .filter(|path| FORBIDDEN.iter().any(|f| falls_under(path, f)))
            .map(|path| path.join("::"))
            .collect();
        hits.dedup();
        hits
    };
    for (source, hit) in [
        ("use tokio::sync::mpsc;", "tokio::sync::mpsc"),
        ("use std::{collections::BTreeMap, net::{IpAddr, TcpStream}};", "std::net::TcpStream"),
        ("use std::{\n    fs::{self},\n};", "std::fs"),
        ("use std::{time::{Duration, Instant as Now}};", "std::time::Instant"),
        ("fn f() { std::process::exit(1) }", "std::process::exit"),
        ("fn f(a: ::kube::Api) {}", "kube::Api"),
        ("use netlink_sys as n;", "netlink_sys"),
        ("use std::time::*;", "std::time::*"),
        ("use std::{self as s};", "std"),
    ] {
        assert_eq!(named(source), [hit], "{source}");
    }
    for source in [
        "// use tokio::sync;\n/// See [`aya::Pod`].\nuse std::time::Duration;",
        "use std::net::{IpAddr, SocketAddr};",
        "let s = \"std::fs\"; /* tokio::spawn */ let c = '\"'; let l: &'static str = s;",
        "use datapath::abi; fn f() { self.nix.kube() }",
    ] {
        assert_eq!(named(source), [""; 0], "{source}");
    }
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Whether `path` names something below `rule`, or a parent of it as a whole (`use std::time::*`, `use std`).
fn falls_under(path: &[String], rule: &str) -> bool {
    let rule: Vec<&str> = rule.split("::").collect();
    let whole = path.last().is_some_and(|last| last == "*") || path.len() == 1;
    let path = match path {
        [init @ .., last] if last == "*" => init,
        path => path,
    };
    let matches = path.iter().zip(&rule).all(|(segment, rule)| match rule.strip_suffix('*') {
        Some(prefix) => segment.starts_with(prefix),
        None => segment == rule,
    });
    matches && (path.len() >= rule.len() || whole)
}

/// All paths that a source file names, `use` trees expanded.
fn paths(source: &str) -> Vec<Vec<String>> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at] == "use" {
            at += 1;
            at = use_tree(&tokens, at, &[], &mut found);
        } else if is_name(&tokens[at]) && (at == 0 || !matches!(tokens[at - 1].as_str(), "." | "::"))
            || tokens[at] == "::"
        {
            at += usize::from(tokens[at] == "::");
            let mut path = Vec::new();
            while at < tokens.len() && is_name(&tokens[at]) {
                path.push(tokens[at].clone());
                if tokens.get(at + 1).is_some_and(|t| t == "::") {
                    at += 2;
                } else {
                    break;
                }
            }
            // A single name is a variable or a keyword.
            if path.len() > 1 {
                found.push(path);
            }
            at += 1;
        } else {
            at += 1;
        }
    }
    found
}

/// Expands the tree at `at` and returns the place after it.
fn use_tree(tokens: &[String], mut at: usize, prefix: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|t| t != "}") {
                    at = use_tree(tokens, at, &path, found);
                    at += usize::from(tokens.get(at).is_some_and(|t| t == ","));
                }
                return at + 1;
            }
            "as" => at += 2,
            "self" if path == prefix && !prefix.is_empty() => at += 1,
            name if is_name(name) || name == "*" => {
                path.push(token.clone());
                at += 1;
            }
            _ => break,
        }
    }
    found.push(path);
    at
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::` and punctuation; without comments and literals.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            string(rest)
        } else if first == '\'' {
            // A character, or else a lifetime.
            let mut chars = rest.char_indices().skip(1);
            match (chars.next(), chars.next()) {
                (Some((_, '\\')), _) => rest[3..].find('\'').map_or(rest.len(), |end| end + 4),
                (_, Some((end, '\''))) => end + 1,
                _ => 1,
            }
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(rest[..end].to_owned());
            end
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// Length of the string literal at the start.
fn string(source: &str) -> usize {
    let mut escaped = false;
    for (at, c) in source.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    source.len()
}

/// `docs/kube-proxy-parity.md` names tests in the last cell of each row: cases by name, others by file and function.
#[test]
fn the_tests_that_parity_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let cases = root.join("lb/tests/parity/cases");
    let text = fs::read_to_string(root.join("docs/kube-proxy-parity.md")).unwrap();
    let (mut missing, mut named) = (Vec::new(), Vec::new());
    for row in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| | |")) {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        for part in cell.split(';') {
            let names: Vec<&str> = part.split('`').skip(1).step_by(2).collect();
            if part.trim_start().starts_with("case") {
                missing.extend(
                    names.iter().copied().filter(|name| !cases.join(format!("{name}.yaml")).is_file()),
                );
                named.extend(names);
            } else if let Some((file, functions)) = names.split_first() {
                let source = root.join(file);
                let source = if source.is_dir() { Ok(String::new()) } else { fs::read_to_string(source) };
                match source {
                    Ok(source) => missing
                        .extend(functions.iter().copied().filter(|f| !source.contains(&format!("fn {f}(")))),
                    Err(_) => missing.push(file),
                }
            }
        }
    }
    assert!(missing.is_empty(), "named, and not there: {missing:#?}");
    let unnamed: Vec<String> = fs::read_dir(cases)
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().path().file_stem()?.to_str()?.to_owned()))
        .filter(|case| !named.contains(&case.as_str()))
        .collect();
    assert!(unnamed.is_empty(), "cases that no row names: {unnamed:?}");
}
