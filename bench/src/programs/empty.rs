//! Programs that return at once, to see what the harness itself costs. aya loads objects only, and two instructions
//! need none.

use std::{
    ffi::CString,
    io, mem,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use anyhow::Context as _;
use aya::programs::{SchedClassifier, Xdp};
use aya_obj::{
    generated::{BPF_ALU64, BPF_EXIT, BPF_JMP, BPF_K, BPF_MOV, bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type},
    programs::XdpAttachType,
};
use lab::Workspace;

const XDP_PASS: i32 = 2;
const TC_ACT_UNSPEC: i32 = -1;

pub(super) struct Empty {
    pub(super) xdp: Xdp,
    pub(super) tc: SchedClassifier,
}

impl Empty {
    pub(super) fn load(workspace: &Workspace) -> anyhow::Result<Self> {
        let pinned = |name: &str, kind, verdict| {
            let path = workspace.bpffs().join(name);
            load(kind, verdict)
                .and_then(|program| pin(&program, &path))
                .context("cannot load an empty program")?;
            anyhow::Ok(path)
        };
        let xdp = pinned("empty_xdp", bpf_prog_type::BPF_PROG_TYPE_XDP, XDP_PASS)?;
        let tc = pinned("empty_tc", bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS, TC_ACT_UNSPEC)?;
        Ok(Self { xdp: Xdp::from_pin(xdp, XdpAttachType::Interface)?, tc: SchedClassifier::from_pin(tc)? })
    }
}

fn load(kind: bpf_prog_type, verdict: i32) -> io::Result<OwnedFd> {
    let instruction = |code: u32, imm: i32| {
        // SAFETY: a structure of plain integers.
        let mut instruction: bpf_insn = unsafe { mem::zeroed() };
        instruction.code = code as u8;
        instruction.imm = imm;
        instruction
    };
    let program = [instruction(BPF_ALU64 | BPF_MOV | BPF_K, verdict), instruction(BPF_JMP | BPF_EXIT, 0)];
    let license = c"Dual MIT/GPL";
    let mut attr = zeroed();
    attr.__bindgen_anon_3.prog_type = kind as u32;
    attr.__bindgen_anon_3.insns = program.as_ptr() as u64;
    attr.__bindgen_anon_3.insn_cnt = program.len() as u32;
    attr.__bindgen_anon_3.license = license.as_ptr() as u64;
    let fd = bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn pin(program: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attr.__bindgen_anon_4.bpf_fd = program.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

fn zeroed() -> bpf_attr {
    // SAFETY: a union of plain integers, for which zero is valid and means "unset".
    unsafe { mem::zeroed() }
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: `attr` is a whole `union bpf_attr`; what the pointers in it lead to outlives the call in both callers.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
