//! What bad manifests cost in memory: a test of its own, whose process does nothing else.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{fs, time::Duration};

use portico::{convert::Selector, driver::allocator, model::change::Event, source::manifests};
use tokio::{sync::mpsc, time::timeout};

const DEADLINE: Duration = Duration::from_secs(120);
const MIB: usize = 1 << 20;
/// The size of each file, well within the limit of 64 MiB.
const FILE: usize = 8 * MIB;
/// What may be left of one, such as pieces that the allocator keeps.
const LEFT: usize = 6 * MIB;

/// What reading one takes meanwhile, in sizes of the file.
const PEAK: usize = 4;

/// Resident memory of this process in bytes: now, or at most since it was last reset.
fn resident(key: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1_024
}

fn reset_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Memory before, after and at most in between, of a source that reads a file.
async fn read(text: &str) -> [usize; 3] {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), text).unwrap();
    let before = resident("VmRSS");
    reset_peak();
    let (sender, mut events) = mpsc::channel(16);
    let task = tokio::spawn(manifests::run(dir.path().to_owned(), Selector::default(), sender));
    let mut kept = Vec::new();
    let first = async {
        let mut kinds = 0;
        while kinds < 4 {
            let event = events.recv().await.unwrap();
            kinds += usize::from(!matches!(event, Event::Trouble { .. }));
            kept.push(event);
        }
    };
    timeout(DEADLINE, first).await.unwrap();
    let found = [before, resident("VmRSS"), resident("VmHWM")];
    assert!(kept.len() >= 4, "what was told is in memory, too");
    drop(events);
    timeout(DEADLINE, task).await.unwrap().unwrap().unwrap();
    found
}

#[tokio::test]
async fn nothing_of_what_was_refused_stays_in_memory() {
    allocator::give_back_large_blocks();
    let service = |more: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web{more}}}\n\
             spec: {{clusterIP: 10.96.0.1, ports: [{{port: 80}}]}}\n"
        )
    };
    let long = "x".repeat(FILE);
    for (what, text) in [
        ("a long name", service(&long)),
        ("a long annotation", service(&format!(", annotations: {{a: {long}}}"))),
        ("a long unknown key", service(&format!(", ? {long}\n : 1"))),
        ("a long address", service("").replace("10.96", &long)),
        ("a long type", service("").replace("ports:", &format!("type: {long}, ports:"))),
        ("no YAML", format!("a: [{long}")),
        ("many bad documents", "--- a\n".repeat(FILE / 6)),
        ("many bad items", format!("apiVersion: v1\nkind: ServiceList\nitems: [{}]", "a, ".repeat(100_000))),
    ] {
        // The first time is for what is made once.
        read(&text).await;
        let [before, after, most] = read(&text).await;
        println!("{what}: {} MiB, then {} MiB, at most {} MiB", before / MIB, after / MIB, most / MIB);
        assert!(after < before + LEFT, "{what}: {before} bytes before, {after} after");
        assert!(most < before + PEAK * FILE, "{what}: {before} bytes before, at most {most}");
    }
}
