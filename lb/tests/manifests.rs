//! Manifest files on a real file system, changed in all the ways in which files get changed.

#![expect(clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use portico::{
    convert::Selector,
    model::{
        Service, ServiceCidr,
        change::{Change, Event, Outcome},
    },
    source::manifests,
};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

/// Ample for a loaded machine, and less than the time after which changes are found without notification.
const DEADLINE: Duration = Duration::from_secs(4);

const V4: &str = "10.96.0.1";
const V6: &str = "fd00:96::1";
const OTHER: &str = "10.96.0.2";

/// What a consumer of the events knows.
#[derive(Default)]
struct Known {
    events: usize,
    resets: usize,
    services: BTreeMap<String, Outcome<Service>>,
    slices: BTreeMap<String, ()>,
    nodes: BTreeMap<String, ()>,
    service_cidrs: BTreeMap<String, Outcome<ServiceCidr>>,
    troubles: BTreeMap<String, Vec<String>>,
    /// Names of objects that were deleted, even if only for a moment.
    deleted: Vec<String>,
}

impl Known {
    fn take(&mut self, event: Event) {
        self.events += 1;
        match event {
            Event::Service(change) => {
                apply(change, &mut self.services, |o| o, &mut self.deleted, &mut self.resets);
            }
            Event::Slice(change) => {
                apply(change, &mut self.slices, |_| (), &mut self.deleted, &mut self.resets);
            }
            Event::Node(change) => {
                apply(change, &mut self.nodes, |_| (), &mut self.deleted, &mut self.resets);
            }
            Event::ServiceCidr(change) => {
                apply(change, &mut self.service_cidrs, |o| o, &mut self.deleted, &mut self.resets);
            }
            Event::Trouble { place, problems, .. } if problems.is_empty() => {
                assert!(self.troubles.remove(&place).is_some(), "{place} withdrawn without need");
            }
            Event::Trouble { place, problems, .. } => {
                self.troubles.insert(place, problems);
            }
        }
    }

    fn names(&self) -> Vec<&str> {
        self.services.keys().map(String::as_str).collect()
    }

    /// The cluster IP of a Service that was understood.
    fn ip(&self, name: &str) -> Option<String> {
        let converted = self.services.get(name)?.as_ref().ok()?;
        Some(converted.object.as_ref()?.cluster_ips.first()?.to_string())
    }

    fn trouble(&self) -> String {
        self.troubles.values().flatten().cloned().collect::<Vec<_>>().join("; ")
    }
}

fn apply<T, U>(
    change: Change<T>,
    known: &mut BTreeMap<String, U>,
    keep: impl Fn(Outcome<T>) -> U,
    deleted: &mut Vec<String>,
    resets: &mut usize,
) {
    match change {
        Change::Apply(name, outcome) => {
            known.insert(name.to_string(), keep(outcome));
        }
        Change::Delete(name) => {
            assert!(known.remove(&name.to_string()).is_some(), "{name} deleted without need");
            deleted.push(name.to_string());
        }
        Change::Reset(all) => {
            *resets += 1;
            *known = all.into_iter().map(|(name, outcome)| (name.to_string(), keep(outcome))).collect();
        }
    }
}

/// A directory that is followed.
struct Followed {
    temp: TempDir,
    path: PathBuf,
    known: Known,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<Result<(), manifests::Error>>,
}

impl Followed {
    /// Fills the directory, and follows it from then on.
    async fn with(fill: impl FnOnce(&Path)) -> Self {
        Self::with_selector(Selector::default(), fill).await
    }

    async fn with_selector(selector: Selector, fill: impl FnOnce(&Path)) -> Self {
        let temp = TempDir::new().expect("temporary directory");
        let path = temp.path().join("manifests");
        fs::create_dir(&path).expect("directory");
        fill(&path);
        let (sender, events) = mpsc::channel(16);
        let task = tokio::spawn(manifests::run(path.clone(), selector, sender));
        let mut followed = Self { temp, path, known: Known::default(), events, task };
        followed.until("first state", |known| known.resets == 4).await;
        followed
    }

    async fn until(&mut self, what: &str, condition: impl Fn(&Known) -> bool) {
        let wait = async {
            while !condition(&self.known) {
                let event = self.events.recv().await.expect("the source runs");
                self.known.take(event);
            }
        };
        if timeout(DEADLINE, wait).await.is_err() {
            panic!("no {what}: {:?}, {:?}", self.known.services, self.known.troubles);
        }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path.join(name), text).expect("write");
    }
}

fn service(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: '{ip}', ports: [{{port: 80}}]}}\n"
    )
}

fn is(ip: &str) -> Option<String> {
    Some(ip.to_owned())
}

#[tokio::test]
async fn begins_with_all_there_is() {
    let f = Followed::with(|d| {
        fs::write(d.join("a.yaml"), format!("{}---\n{}", service("a", V4), service("b", V6))).expect("write");
        fs::write(d.join("n.json"), r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n"}}"#).expect("write");
        fs::write(d.join(".hidden.yaml"), service("hidden", V4)).expect("write");
        fs::write(d.join("README.md"), "not a manifest").expect("write");
        fs::create_dir(d.join("directory.yaml")).expect("directory");
        // Who opens a pipe without writer waits forever.
        mkfifo(&d.join("pipe.yaml"), Mode::S_IRWXU).expect("mkfifo");
        let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: {kubernetes.io/service-name: a}}\naddressType: IPv4\n";
        fs::write(d.join("s.yml"), slice).expect("write");
    })
    .await;
    assert_eq!((f.known.ip("default/a"), f.known.ip("default/b")), (is(V4), is(V6)));
    assert_eq!(f.known.services.len() + f.known.slices.len() + f.known.nodes.len(), 4);
    assert_eq!((f.known.trouble(), f.known.events), (String::new(), 4));
}

#[tokio::test]
async fn an_empty_directory_is_a_state_too() {
    let f = Followed::with(|_| {}).await;
    assert_eq!((f.known.events, f.known.names().len()), (4, 0));
}

#[tokio::test]
async fn a_missing_directory_is_an_error_at_the_start() {
    let temp = TempDir::new().expect("temporary directory");
    let (sender, _events) = mpsc::channel(1);
    let error =
        manifests::run(temp.path().join("missing"), Selector::default(), sender).await.expect_err("an error");
    assert!(error.to_string().starts_with("cannot read manifests in /"), "{error}");
}

#[tokio::test]
async fn ends_when_nobody_listens() {
    let f = Followed::with(|_| {}).await;
    drop(f.events);
    timeout(DEADLINE, f.task).await.expect("an end").expect("no panic").expect("no error");
}

#[tokio::test]
async fn follows_edits_renames_and_deletions() {
    let mut f = Followed::with(|d| fs::write(d.join("a.yaml"), service("a", V4)).expect("write")).await;
    f.write("b.yaml", &service("b", V4));
    f.until("new file", |k| k.ip("default/b") == is(V4)).await;
    f.write("b.yaml", &service("b", V6));
    f.until("edit in place", |k| k.ip("default/b") == is(V6)).await;

    f.write(".b.yaml.swp", &service("b", OTHER));
    fs::rename(f.path.join(".b.yaml.swp"), f.path.join("b.yaml")).expect("rename");
    f.until("atomic replacement", |k| k.ip("default/b") == is(OTHER)).await;

    fs::rename(f.path.join("b.yaml"), f.path.join("c.yaml")).expect("rename");
    f.write("a.yaml", &format!("{}---\n{}", service("a", V4), service("d", V4)));
    f.until("second document", |k| k.ip("default/d") == is(V4)).await;
    assert_eq!(f.known.names(), ["default/a", "default/b", "default/d"]);
    assert_eq!(f.known.deleted, [""; 0]);

    f.write("a.yaml", &service("d", V4));
    f.until("removed document", |k| k.names() == ["default/b", "default/d"]).await;
    fs::remove_file(f.path.join("c.yaml")).expect("remove");
    f.until("deletion", |k| k.names() == ["default/d"]).await;
    f.write("a.yaml", "# nothing left\n");
    f.until("deletion by comment", |k| k.names().is_empty()).await;
    assert_eq!((f.known.resets, f.known.trouble()), (4, String::new()));
}

#[tokio::test]
async fn service_cidrs_are_followed() {
    let cidr = |cidrs: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {{name: a}}\nspec: {{cidrs: {cidrs}}}\n"
        )
    };
    let known = |k: &Known| -> Option<Vec<String>> {
        let object = k.service_cidrs.get("a")?.as_ref().ok()?.object.as_ref()?;
        Some(object.cidrs.iter().map(ToString::to_string).collect())
    };
    let mut f = Followed::with(|d| fs::write(d.join("a.yaml"), cidr("[10.96.0.0/12]")).expect("write")).await;
    assert_eq!(known(&f.known).expect("known"), ["10.96.0.0/12"]);
    f.write("a.yaml", &cidr("[10.96.0.0/12, 'fd00:96::/112']"));
    f.until("change", |k| known(k).is_some_and(|c| c == ["10.96.0.0/12", "fd00:96::/112"])).await;
    fs::rename(f.path.join("a.yaml"), f.path.join("b.yaml")).expect("rename");
    f.write("b.yaml", &cidr("['fd00:96::/112']").replace("/v1", "/v1beta1"));
    f.until("change of the version", |k| known(k).is_some_and(|c| c == ["fd00:96::/112"])).await;
    fs::remove_file(f.path.join("b.yaml")).expect("remove");
    f.until("deletion", |k| k.service_cidrs.is_empty()).await;
    assert_eq!((f.known.resets, f.known.trouble()), (4, String::new()));
}

#[tokio::test]
async fn labels_give_services_to_a_proxy_and_take_them_away() {
    let labelled = |name: &str| {
        let label = format!("name: web, labels: {{service.kubernetes.io/service-proxy-name: {name}}}");
        service("web", V6).replace("name: web", &label)
    };
    for (selector, ours, others) in [
        (Selector::default(), service("web", V6), labelled("edge")),
        (Selector::new(Some("edge".to_owned())), labelled("edge"), labelled("other")),
        (Selector::new(Some("edge".to_owned())), labelled("edge"), service("web", V6)),
    ] {
        let mut f =
            Followed::with_selector(selector, |d| fs::write(d.join("a.yaml"), &others).expect("write")).await;
        assert_eq!(f.known.ip("default/web"), None);
        for _ in 0..2 {
            f.write("a.yaml", &ours);
            f.until("adoption", |k| k.ip("default/web") == is(V6)).await;
            f.write("a.yaml", &others);
            f.until("surrender", |k| k.ip("default/web").is_none()).await;
        }
        assert_eq!(f.known.trouble(), "");
        assert!(
            f.known.services.values().all(|outcome| outcome.as_ref().is_ok_and(|c| c.defects.is_empty()))
        );
    }
}

#[tokio::test]
async fn what_else_a_cluster_is_made_of_is_skipped() {
    let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 2}\n---\n---\n\
                 apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: web}, data: {a: b}}\n---\n\
                 apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: a.b.c}\n---\n# no more\n---\n";
    let mut f = Followed::with(|d| {
        fs::write(d.join("a.yaml"), format!("{other}{}---\n{other}", service("web", V4))).expect("write");
        fs::write(d.join("b.yaml"), other).expect("write");
    })
    .await;
    assert_eq!((f.known.ip("default/web"), f.known.trouble()), (is(V4), String::new()));
    f.write("a.yaml", other);
    f.until("deletion", |k| k.names().is_empty()).await;
    assert_eq!(f.known.trouble(), "");
}

#[tokio::test]
async fn only_differences_are_told() {
    let mut all: Vec<_> = (0..200).map(|i| service(&format!("s{i}"), V4)).collect();
    let mut f = Followed::with(|d| fs::write(d.join("a.yaml"), all.join("---\n")).expect("write")).await;
    all[7] = service("s7", V6);
    f.write("a.yaml", &format!("# moves all by a line\n{}", all.join("---\n")));
    f.until("edit", |k| k.ip("default/s7") == is(V6)).await;
    assert_eq!(f.known.events, 5);
}

#[tokio::test]
async fn a_broken_file_removes_nothing() {
    let good = format!("{}---\n{}", service("a", V4), service("b", V4));
    let mut f = Followed::with(|d| fs::write(d.join("x.yaml"), &good).expect("write")).await;
    for broken in [
        good[..good.len() - 20].to_owned(),
        "apiVersion: v1\nkind: [".to_owned(),
        String::new(),
        "\n \n".to_owned(),
        "\u{0}\u{0}\u{0}".to_owned(),
    ] {
        f.write("x.yaml", &broken);
        f.until(&format!("trouble with {broken:?}"), |k| !k.troubles.is_empty()).await;
        let told = f.known.trouble();
        assert!(told.contains("line ") || told.contains("empty"), "{broken:?}: {told}");
        assert_eq!(f.known.names(), ["default/a", "default/b"], "{broken:?}");
        assert!(f.known.troubles.keys().all(|place| place.ends_with("manifests/x.yaml")));
        f.write("x.yaml", &good);
        f.until("recovery", |k| k.troubles.is_empty()).await;
    }
    fs::write(f.path.join("x.yaml"), [0xff, 0xfe, b'a']).expect("write");
    f.until("trouble with what is not UTF-8", |k| k.trouble().contains("UTF-8")).await;
    assert_eq!(f.known.deleted, [""; 0]);
}

#[tokio::test]
async fn beside_a_mistake_what_is_right_counts() {
    let good = format!("{}---\n{}", service("a", V4), service("b", V4));
    let mut f = Followed::with(|d| fs::write(d.join("x.yaml"), &good).expect("write")).await;
    f.write("x.yaml", &format!("{}---\na: [\n---\n{}", service("a", V6), service("c", V4)));
    f.until("new state", |k| k.ip("default/a") == is(V6) && k.ip("default/c") == is(V4)).await;
    f.until("trouble with its line", |k| k.trouble().contains("line 6")).await;
    assert_eq!(f.known.ip("default/b"), is(V4));
    f.write("x.yaml", &service("a", V6));
    f.until("recovery", |k| k.names() == ["default/a"] && k.troubles.is_empty()).await;
    assert_eq!(f.known.deleted.len(), 2);
}

#[tokio::test]
async fn a_file_is_read_when_its_writer_is_done() {
    let mut f = Followed::with(|d| fs::write(d.join("a.yaml"), service("a", V4)).expect("write")).await;
    let mut file = fs::File::create(f.path.join("a.yaml")).expect("create");
    file.write_all(service("b", V4).as_bytes()).expect("write");
    f.write("other.yaml", &service("o", V4));
    file.write_all(format!("---\n{}", service("a", V6)).as_bytes()).expect("write");
    drop(file);
    f.until("all", |k| k.services.len() == 3 && k.ip("default/a") == is(V6)).await;
    assert_eq!(f.known.deleted, [""; 0]);
}

#[tokio::test]
async fn a_bad_object_is_rejected_alone() {
    let mut f = Followed::with(|_| {}).await;
    let bad = service("bad", V4).replace("clusterIP", "clusterIp");
    f.write("a.yaml", &format!("{bad}---\n{}", service("good", V4)));
    f.until("both", |k| k.services.len() == 2).await;
    let reason = f.known.services["default/bad"].clone().expect_err("rejected");
    assert_eq!(reason, "a.yaml line 1: there is no field spec.clusterIp");
    assert_eq!((f.known.ip("default/good"), f.known.trouble()), (is(V4), String::new()));
    f.write("a.yaml", &format!("{}---\n{}", service("bad", V6), service("good", V4)));
    f.until("mended", |k| k.ip("default/bad") == is(V6)).await;
}

#[tokio::test]
async fn the_first_file_by_name_has_the_say() {
    let mut f = Followed::with(|d| {
        fs::write(d.join("a.yaml"), service("x", V4)).expect("write");
        fs::write(d.join("b.yaml"), format!("{}---\n{}", service("x", V6), service("x", OTHER)))
            .expect("write");
    })
    .await;
    assert_eq!(f.known.ip("default/x"), is(V4));
    f.until("trouble", |k| !k.troubles.is_empty()).await;
    let problems = f.known.troubles.values().next().expect("one file's");
    assert_eq!(
        *problems,
        [
            "line 6: Service default/x is in line 1 already, which counts",
            "line 1: Service default/x is in a.yaml too, which counts",
        ]
    );
    fs::remove_file(f.path.join("a.yaml")).expect("remove");
    f.until("the other", |k| k.ip("default/x") == is(V6)).await;
    f.write("b.yaml", &service("x", V6));
    f.until("peace", |k| k.troubles.is_empty()).await;
    assert_eq!(f.known.deleted, [""; 0]);
}

/// A version of a `ConfigMap` as the kubelet puts it there.
fn publish(directory: &Path, version: &str, ip: Option<&str>) {
    let data = directory.join(version);
    fs::create_dir(&data).expect("directory");
    if let Some(ip) = ip {
        fs::write(data.join("svc.yaml"), service("a", ip)).expect("write");
    }
    symlink(version, directory.join("..data_tmp")).expect("symlink");
    fs::rename(directory.join("..data_tmp"), directory.join("..data")).expect("rename");
}

#[tokio::test]
async fn follows_the_symlink_swap_of_a_mounted_config_map() {
    let mut f = Followed::with(|d| {
        publish(d, "..1", Some(V4));
        symlink("..data/svc.yaml", d.join("svc.yaml")).expect("symlink");
    })
    .await;
    assert_eq!(f.known.ip("default/a"), is(V4));
    publish(&f.path, "..2", Some(V6));
    fs::remove_dir_all(f.path.join("..1")).expect("remove");
    f.until("swap", |k| k.ip("default/a") == is(V6)).await;

    // A key that is gone from the ConfigMap leaves a dangling link for a moment.
    publish(&f.path, "..3", None);
    f.until("trouble", |k| k.trouble().contains("cannot be read")).await;
    assert_eq!(f.known.names(), ["default/a"]);
    fs::remove_file(f.path.join("svc.yaml")).expect("remove");
    f.until("deletion", |k| k.names().is_empty() && k.troubles.is_empty()).await;
}

#[tokio::test]
async fn a_vanished_directory_removes_nothing() {
    let mut f = Followed::with(|d| fs::write(d.join("a.yaml"), service("a", V4)).expect("write")).await;
    let away = f.temp.path().join("away");
    for ip in [V6, OTHER] {
        fs::rename(&f.path, &away).expect("rename");
        f.until("trouble", |k| k.trouble().contains("cannot be read")).await;
        assert!(f.known.ip("default/a").is_some());
        fs::write(away.join("a.yaml"), service("a", ip)).expect("write");
        fs::rename(&away, &f.path).expect("rename");
        f.until("return", |k| k.ip("default/a") == is(ip) && k.troubles.is_empty()).await;
        f.write("b.yaml", &service("b", ip));
        f.until("notifications", |k| k.ip("default/b") == is(ip)).await;
    }
    assert_eq!(f.known.deleted, [""; 0]);
    // Its files are removed one by one first, which may have been seen or not.
    fs::remove_dir_all(&f.path).expect("remove");
    f.until("trouble", |k| k.trouble().contains("cannot be read")).await;
    fs::create_dir(&f.path).expect("directory");
    f.write("c.yaml", &service("c", V4));
    f.until("another directory", |k| k.names() == ["default/c"] && k.troubles.is_empty()).await;
    f.write("c.yaml", &service("c", V6));
    f.until("notifications", |k| k.ip("default/c") == is(V6)).await;
}

#[tokio::test]
async fn a_directory_swapped_for_another_is_followed() {
    let mut f = Followed::with(|d| fs::write(d.join("a.yaml"), service("a", V4)).expect("write")).await;
    let next = f.temp.path().join("next");
    fs::create_dir(&next).expect("directory");
    fs::write(next.join("a.yaml"), service("a", V6)).expect("write");
    fs::rename(&f.path, f.temp.path().join("old")).expect("rename");
    fs::rename(&next, &f.path).expect("rename");
    f.until("the other", |k| k.ip("default/a") == is(V6)).await;
    f.write("a.yaml", &service("a", OTHER));
    f.until("notifications", |k| k.ip("default/a") == is(OTHER)).await;
    assert_eq!(f.known.deleted, [""; 0]);
}

/// The most bytes of a file.
const MAX_BYTES: u64 = 64 << 20;

#[tokio::test]
async fn a_file_beyond_its_size_is_refused_until_it_is_smaller() {
    let mut f = Followed::with(|d| {
        fs::write(d.join("a.yaml"), service("a", V4)).expect("write");
        // Ten gigabytes that are not on the disk.
        let sparse = fs::File::create(d.join("b.yaml")).expect("create");
        sparse.set_len(10 << 30).expect("sparse file");
        fs::write(d.join("c.yaml"), service("c", V4)).expect("write");
    })
    .await;
    assert_eq!(f.known.names(), ["default/a", "default/c"]);
    let told = f.known.trouble();
    assert_eq!(told, "cannot be read: it is larger than 64 MiB, the most that a file may have");
    f.write("b.yaml", &service("b", V4));
    f.until("the smaller file", |k| k.ip("default/b") == is(V4) && k.troubles.is_empty()).await;

    // What was good in it stays while it is too large.
    let grown = fs::File::options().write(true).open(f.path.join("b.yaml")).expect("open");
    grown.set_len(MAX_BYTES + 1).expect("grow");
    drop(grown);
    f.until("trouble", |k| k.trouble().contains("64 MiB")).await;
    f.write("a.yaml", &service("a", V6));
    f.until("the rest of the directory", |k| k.ip("default/a") == is(V6)).await;
    assert_eq!(f.known.ip("default/b"), is(V4));
    f.write("b.yaml", &service("b", V6));
    f.until("recovery", |k| k.ip("default/b") == is(V6) && k.troubles.is_empty()).await;
    assert_eq!(f.known.deleted, [""; 0]);
}

#[tokio::test]
async fn links_to_what_has_no_end_are_none_of_ours() {
    let mut f = Followed::with(|d| {
        for (name, target) in [("zero.yaml", "/dev/zero"), ("pipe.json", "pipe"), ("full.yml", "/dev/full")] {
            symlink(target, d.join(name)).expect("symlink");
        }
        mkfifo(&d.join("pipe"), Mode::S_IRWXU).expect("mkfifo");
        fs::write(d.join("a.yaml"), service("a", V4)).expect("write");
    })
    .await;
    assert_eq!((f.known.names(), f.known.trouble()), (vec!["default/a"], String::new()));
    fs::remove_file(f.path.join("zero.yaml")).expect("remove");
    f.write("zero.yaml", &service("zero", V4));
    f.until("a file in place of a device", |k| k.ip("default/zero") == is(V4)).await;
}

/// Bytes of a string that is far too long.
const LONG: usize = 4 << 20;

#[tokio::test]
async fn what_is_said_of_a_bad_file_is_short_and_steers_no_terminal() {
    let odd = "\\e[31m\\n\\x9b\\u202e";
    let with = |what: &str, value: &str| service("web", V4).replace(what, value);
    for value in [odd.to_owned(), "x".repeat(LONG), odd.repeat(LONG / odd.len())] {
        let mut f = Followed::with(|_| {}).await;
        for (n, text) in [
            with("name: web", &format!("name: \"{value}\"")),
            with("name: web", &format!("name: web, namespace: \"{value}\"")),
            with("kind: Service", &format!("kind: \"{value}\"")),
            with("apiVersion: v1", &format!("apiVersion: \"{value}\"\nkey: {{}}")),
            with("port: 80", &format!("port: \"{value}\"")),
            with(V4, &value).replace('\'', "\""),
            with("clusterIP", &format!("\"{value}\": 1, clusterIP")),
            with("spec:", &format!("status: {{loadBalancer: {{ingress: [{{ip: \"{value}\"}}]}}}}\nspec:")),
            format!("\"{value}"),
            format!("key: \"{value}\"\nkey: [\"{value}\""),
            format!("? [\"{value}\"]\n: *{}", "y".repeat(LONG)),
        ]
        .into_iter()
        .enumerate()
        {
            f.write(&format!("{n}\u{1b}[31m.yaml"), &text);
        }
        f.write("list.json", &format!("{{\"\\u001b{}\": ", "x".repeat(LONG)));
        let mut known = std::mem::take(&mut f.known);
        // All of them, however long they take.
        let wait = async {
            while known.troubles.len() + known.services.len() < 10 {
                known.take(f.events.recv().await.expect("the source runs"));
            }
        };
        timeout(20 * DEADLINE, wait).await.expect("all are told of");
        let outcomes = known.services.values();
        let said = outcomes.flat_map(|outcome| match outcome {
            Ok(converted) => [converted.defects.as_slice(), converted.notes.as_slice()].concat(),
            Err(reason) => vec![reason.clone()],
        });
        let said: Vec<String> = said.chain(known.troubles.into_values().flatten()).collect();
        assert!(said.len() >= 10, "{said:?}");
        for line in said {
            assert!(line.len() <= portico::text::LINE, "{} bytes", line.len());
            assert!(!line.contains(['\u{1b}', '\n', '\u{9b}', '\u{202e}']), "{line:?}");
        }
    }
}

#[tokio::test]
async fn what_is_said_of_a_bad_file_is_limited_in_number() {
    let mut f = Followed::with(|_| {}).await;
    f.write("a.yaml", &format!("{}---\n{}", "--- a\n".repeat(10_000), service("a", V4)));
    f.until("good and bad", |k| k.ip("default/a") == is(V4) && !k.troubles.is_empty()).await;
    let problems = f.known.troubles.values().next().expect("one file's").clone();
    assert_eq!(problems.len(), portico::text::LINES + 1);
    assert_eq!(problems.last().map(String::as_str), Some("9950 more like these"));
    f.write("a.yaml", &"--- a\n".repeat(300_000));
    f.until("too many", |k| k.trouble() == "more than 262144 documents in one file").await;
    assert_eq!(f.known.ip("default/a"), is(V4), "what was good stays");
    let bad =
        service("a", V6).replace("spec: {", &format!("spec: {{externalIPs: [{}], ", "x, ".repeat(10_000)));
    f.write("a.yaml", &bad);
    f.until("its defects", |k| k.troubles.is_empty() && k.ip("default/a") == is(V6)).await;
    let defects = &f.known.services["default/a"].as_ref().expect("understood").defects;
    assert_eq!(defects.len(), portico::text::LINES + 1);
}

/// Documents that a parser may need far more memory, time or stack for than they have bytes.
#[tokio::test]
async fn bombs_are_refused() {
    let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let last = format!("*a{}", i - 1);
        aliases += &format!("a{i}: &a{i} [{}]\n", [last.as_str(); 10].join(", "));
    }
    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(10_000));
    let deep = 1_000_000;
    let mut f = Followed::with(|_| {}).await;
    for (name, text) in [
        ("aliases.yaml", aliases),
        ("text.yaml", text),
        ("flow.yaml", "[".repeat(deep)),
        ("maps.yaml", "{a: ".repeat(deep)),
        ("block.yaml", "- ".repeat(deep)),
        ("closed.yaml", format!("a: {}{}", "[".repeat(deep), "]".repeat(deep))),
        ("flow.json", "[".repeat(deep)),
        ("maps.json", "{\"a\": ".repeat(deep)),
    ] {
        f.write(name, &text);
        f.write("good.yaml", &service("good", V4));
        let mut known = std::mem::take(&mut f.known);
        let wait = async {
            while !known.troubles.keys().any(|place| place.ends_with(name)) {
                known.take(f.events.recv().await.expect("the source runs"));
            }
        };
        timeout(20 * DEADLINE, wait).await.unwrap_or_else(|_| panic!("{name} is not refused"));
        assert!(known.trouble().len() <= 8 * portico::text::LINE);
        f.known = known;
    }
    assert_eq!(f.known.ip("default/good"), is(V4));
}
