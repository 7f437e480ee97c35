//! Rules about which part of the source may know which other.
#![expect(clippy::unwrap_used, reason = "a test that cannot read the source has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
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

/// The parts of `lb/src`, and what each may import: those below it and no others. From top to bottom.
const PARTS: [(&str, &[&str]); 15] = [
    (
        "cli",
        &[
            "daemon",
            "view",
            "reconcile",
            "plan",
            "source",
            "driver",
            "config",
            "convert",
            "model",
            "error",
            "file",
            "log",
            "text",
        ],
    ),
    (
        "daemon",
        &[
            "view",
            "reconcile",
            "plan",
            "source",
            "driver",
            "config",
            "convert",
            "model",
            "error",
            "log",
            "text",
        ],
    ),
    ("view", &["plan", "driver", "config", "model", "error", "text"]),
    ("reconcile", &["plan", "driver", "config", "model", "error", "text"]),
    ("plan", &["config", "model", "error", "text"]),
    ("source", &["convert", "model", "error", "file", "text"]),
    ("driver", &["model", "error", "text"]),
    ("config", &["model", "error", "text"]),
    ("convert", &["model", "error", "text"]),
    ("model", &[]),
    ("error", &["text"]),
    ("log", &["text"]),
    ("text", &[]),
    ("file", &[]),
    ("main", &["cli"]),
];

/// The same for the data path: the crates, each with those of the workspace that it may name.
const CRATES: [(&str, &[&str]); 5] = [
    ("xdp/datapath", &[]),
    ("xdp/tables", &["datapath"]),
    ("xdp", &["datapath", "tables"]),
    ("tc", &["datapath", "tables"]),
    ("sockops", &["datapath", "tables"]),
];

const ORDER: &str = "Every import falls, from the commands by the daemon, by what interprets and shows, and by what decides, to \
                     the drivers and the types: so each part can be read with those below it alone. A type that two parts \
                     share belongs in model.";

#[test]
fn every_import_falls() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let tree = Tree::read(&root);
    assert!(tree.files.len() > 100, "nothing to check in {}", root.display());
    let mut violations = Vec::new();
    for (file, named) in tree.imports() {
        let (Some(from), Some(to)) = (file.first(), named.first()) else { continue };
        let may = PARTS.iter().find(|(part, _)| part == from).map(|(_, below)| *below);
        if from != to && !may.is_some_and(|below| below.contains(&to.as_str())) {
            violations.push(format!("{} imports {}", file.join("::"), named.join("::")));
        }
    }
    violations.sort();
    violations.dedup();
    assert!(violations.is_empty(), "{}\n{ORDER}", violations.join("\n"));
}

#[test]
fn no_files_go_in_circles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for source in ["src", "lab/src", "../xdp/datapath/src", "../xdp/tables/src", "../xdp/src"] {
        let tree = Tree::read(&root.join(source));
        assert!(tree.files.len() > 2, "nothing to check in {source}");
        let circles = circles(&tree.imports());
        assert!(circles.is_empty(), "in {source}, of what lies in one directory:\n{}", circles.join("\n"));
    }
}

#[test]
fn programs_use_tables_and_tables_use_the_logic() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let names = ["datapath", "tables", "portico", "lab"];
    for (krate, below) in CRATES {
        for file in rust_files(&root.join(krate).join("src")) {
            for path in paths(&fs::read_to_string(&file).unwrap()) {
                let Some(first) = path.first().filter(|first| names.contains(&first.as_str())) else {
                    continue;
                };
                // The logic has a module of this name.
                let own = root.join(krate).join("src").join(first).with_extension("rs").is_file();
                assert!(
                    own || below.contains(&first.as_str()),
                    "{} names {}",
                    file.display(),
                    path.join("::")
                );
            }
        }
    }
}

#[test]
fn circles_are_found_where_there_are_some() {
    let modules = |list: &[(&str, &str)]| {
        let path = |text: &str| text.split("::").map(str::to_owned).collect::<Vec<_>>();
        list.iter().map(|(from, to)| (path(from), path(to))).collect::<Vec<_>>()
    };
    let found = |list| circles(&modules(list));
    assert_eq!(found(&[("a", "b"), ("b", "a")]), ["a -> b -> a"]);
    assert_eq!(found(&[("p::a", "p::b"), ("p::b", "p::c"), ("p::c", "p::a")]), ["p: a -> b -> c -> a"]);
    // By way of what lies within.
    assert_eq!(found(&[("p::a::x", "p::b"), ("p::b::y", "p::a::z")]), ["p: a -> b -> a"]);
    // A module and what it is made of are one.
    assert_eq!(found(&[("p", "p::a"), ("p::a", "p")]), [""; 0]);
    assert_eq!(found(&[("a", "b"), ("c", "b"), ("a", "c")]), [""; 0]);
}

/// The modules of a crate, by their paths, and what they import.
struct Tree {
    /// Path of the module -> paths that it names, tests aside.
    files: BTreeMap<Vec<String>, Vec<Vec<String>>>,
}

impl Tree {
    fn read(root: &Path) -> Self {
        let mut files = BTreeMap::new();
        for file in rust_files(root) {
            let relative = file.strip_prefix(root).unwrap().with_extension("");
            let mut module: Vec<String> =
                relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
                module.pop();
            }
            if module.iter().any(|part| part == "tests" || part == "testing") {
                continue;
            }
            let source = fs::read_to_string(&file).unwrap();
            // What a file's tests name comes last.
            let source = source.split("#[cfg(test)]\nmod tests").next().unwrap();
            files.insert(module, paths(source));
        }
        Self { files }
    }

    /// Pairs of modules of which the first names something of the second.
    fn imports(&self) -> Vec<(Vec<String>, Vec<String>)> {
        let mut imports = Vec::new();
        for (module, paths) in &self.files {
            for path in paths {
                if let Some(named) = self.find(module, path, 8).filter(|named| named != module) {
                    imports.push((module.clone(), named));
                }
            }
        }
        imports
    }

    /// The module that has what a path names, as seen from a module. Re-exports are followed.
    fn find(&self, module: &[String], path: &[String], depth: usize) -> Option<Vec<String>> {
        let depth = depth.checked_sub(1)?;
        let (first, rest) = path.split_first()?;
        let (mut at, mut rest) = match first.as_str() {
            "crate" => (Vec::new(), rest),
            "self" => (module.to_vec(), rest),
            "super" => (module.split_last()?.1.to_vec(), rest),
            name => {
                let mut child = module.to_vec();
                child.push(name.to_owned());
                if !self.files.contains_key(&child) {
                    return None;
                }
                (child, rest)
            }
        };
        while let Some((next, after)) = rest.split_first() {
            if next == "super" {
                at.pop();
            } else {
                at.push(next.clone());
                if !self.files.contains_key(&at) {
                    at.pop();
                    break;
                }
            }
            rest = after;
        }
        // Not a module: an item of this one, or one that it has from elsewhere.
        if let Some(name) = rest.first().filter(|_| at != module) {
            let imported =
                self.files.get(&at)?.iter().filter(|path| path.len() > 1 && path.last() == Some(name));
            if let Some(found) =
                imported.filter_map(|path| self.find(&at, path, depth)).find(|found| *found != at)
            {
                return Some(found);
            }
        }
        self.files.contains_key(&at).then_some(at)
    }
}

/// Circles among what lies in one module, each module taken with all that is in it.
fn circles(imports: &[(Vec<String>, Vec<String>)]) -> Vec<String> {
    let mut graphs: BTreeMap<&[String], BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for (from, to) in imports {
        let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
        if let (Some(a), Some(b)) = (from.get(common), to.get(common)) {
            graphs.entry(&from[..common]).or_default().entry(a).or_default().insert(b);
        }
    }
    let mut found = Vec::new();
    for (parent, graph) in &graphs {
        let mut done = BTreeSet::new();
        for start in graph.keys() {
            let mut way = Vec::new();
            if let Some(circle) = circle(graph, start, &mut way, &mut done) {
                let parent =
                    if parent.is_empty() { String::new() } else { format!("{}: ", parent.join("::")) };
                found.push(format!("{parent}{circle}"));
            }
        }
    }
    found
}

/// The first circle on the way on from `at`.
fn circle<'a>(
    graph: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    at: &'a str,
    way: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) -> Option<String> {
    if let Some(place) = way.iter().position(|seen| *seen == at) {
        return Some(way[place..].iter().chain([&at]).copied().collect::<Vec<_>>().join(" -> "));
    }
    if !done.insert(at) {
        return None;
    }
    way.push(at);
    let found = graph.get(at).into_iter().flatten().find_map(|next| circle(graph, next, way, done));
    way.pop();
    found
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
