//! What somebody else may do to attachments and pins, by the calls that `bpftool` makes.

use std::{
    ffi::CString,
    fs, io, mem,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_map_type, bpf_prog_type};

fn bpf(command: bpf_cmd, attr: &bpf_attr) -> io::Result<i32> {
    // SAFETY: a whole union; the callers keep alive what it points to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn zeroed() -> bpf_attr {
    // SAFETY: a union of integers.
    unsafe { mem::zeroed() }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn name(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn open(pin: &Path) -> OwnedFd {
    let path = name(pin);
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    owned(bpf(bpf_cmd::BPF_OBJ_GET, &attr).unwrap_or_else(|e| panic!("{}: {e}", pin.display())))
}

/// What the kernel says of a pinned link or map.
fn field(pin: &Path, field: &str) -> Option<u64> {
    let name = name(pin);
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = name.as_ptr() as u64;
    let fd = owned(bpf(bpf_cmd::BPF_OBJ_GET, &attr).ok()?);
    let info = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", fd.as_raw_fd())).unwrap();
    let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    value.trim().parse().ok()
}

/// Id of a pinned link; none without pin.
pub(crate) fn link_id(pin: &Path) -> Option<u64> {
    field(pin, "link_id")
}

/// Id of the program of a pinned link.
pub(crate) fn program_id(pin: &Path) -> Option<u64> {
    field(pin, "prog_id")
}

/// Id of a pinned map.
pub(crate) fn map_id(pin: &Path) -> Option<u64> {
    field(pin, "map_id")
}

/// Whether a pinned link is attached.
pub(crate) fn is_attached(pin: &Path) -> bool {
    ["ifindex", "cgroup_id"].into_iter().any(|place| field(pin, place).is_some_and(|place| place != 0))
}

/// `bpftool link detach`.
pub(crate) fn detach(pin: &Path) {
    let link = open(pin);
    let mut attr = zeroed();
    attr.link_detach.link_fd = link.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_LINK_DETACH, &attr).unwrap();
}

/// Puts a program that does nothing into a pinned link.
pub(crate) fn replace(pin: &Path) {
    use bpf_prog_type::{BPF_PROG_TYPE_CGROUP_SKB, BPF_PROG_TYPE_CGROUP_SOCK_ADDR};
    let (link, file) = (open(pin), pin.file_name().unwrap().to_str().unwrap().to_owned());
    let program = match file.strip_prefix("cgroup-") {
        Some("egress") => {
            program(BPF_PROG_TYPE_CGROUP_SKB, bpf_attach_type::BPF_CGROUP_INET_EGRESS as u32, 1)
        }
        Some("connect4") => {
            program(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, bpf_attach_type::BPF_CGROUP_INET4_CONNECT as u32, 1)
        }
        Some(other) => panic!("{other}: which type has it?"),
        None if file.starts_with("tcx") => classifier(),
        None => program(bpf_prog_type::BPF_PROG_TYPE_XDP, bpf_attach_type::BPF_XDP as u32, 2),
    };
    let mut attr = zeroed();
    attr.link_update.link_fd = link.as_raw_fd() as u32;
    attr.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_LINK_UPDATE, &attr).unwrap();
}

/// Attaches as many classifiers that do nothing as there is room for, to the ingress of an interface of this namespace,
/// until they are dropped.
pub(crate) fn occupy_tcx(interface: &str) -> Vec<OwnedFd> {
    let index = nix::net::if_::if_nametoindex(interface).unwrap();
    let attach = || {
        // Another one each time: none is attached twice.
        let program = classifier();
        let mut attr = zeroed();
        attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
        attr.link_create.__bindgen_anon_2.target_ifindex = index;
        attr.link_create.attach_type = bpf_attach_type::BPF_TCX_INGRESS as u32;
        bpf(bpf_cmd::BPF_LINK_CREATE, &attr).ok().map(owned)
    };
    std::iter::from_fn(attach).collect()
}

/// Pins a classifier that does nothing.
pub(crate) fn pin_classifier(pin: &Path) {
    let (program, path) = (classifier(), name(pin));
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attr.__bindgen_anon_4.bpf_fd = program.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_OBJ_PIN, &attr).unwrap();
}

/// `TCX_NEXT`.
fn classifier() -> OwnedFd {
    program(bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS, 0, -1)
}

/// A program that returns a number.
fn program(kind: bpf_prog_type, attach: u32, result: i32) -> OwnedFd {
    // `r0 = result`, `exit`.
    let instructions: [u64; 2] = [0xb7 | u64::from(result as u32) << 32, 0x95];
    let mut attr = zeroed();
    attr.__bindgen_anon_3.prog_type = kind as u32;
    attr.__bindgen_anon_3.insn_cnt = instructions.len() as u32;
    attr.__bindgen_anon_3.insns = instructions.as_ptr() as u64;
    attr.__bindgen_anon_3.license = c"GPL".as_ptr() as u64;
    attr.__bindgen_anon_3.expected_attach_type = attach;
    owned(bpf(bpf_cmd::BPF_PROG_LOAD, &attr).unwrap())
}

/// Pins a map of its own where another was pinned.
pub(crate) fn pin_another_map(pin: &Path) {
    let mut attr = zeroed();
    attr.__bindgen_anon_1.map_type = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
    attr.__bindgen_anon_1.key_size = 4;
    attr.__bindgen_anon_1.value_size = 4;
    attr.__bindgen_anon_1.max_entries = 1;
    let map = owned(bpf(bpf_cmd::BPF_MAP_CREATE, &attr).unwrap());
    fs::remove_file(pin).unwrap();
    let path = name(pin);
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attr.__bindgen_anon_4.bpf_fd = map.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_OBJ_PIN, &attr).unwrap();
}
