//! The few uses of bpf(2) that aya has no call for: updates in batches, ids of maps, values mapped into memory, and
//! links and maps that are pinned.

use std::{
    ffi::CString,
    io, mem,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::Pod;
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_link_info, bpf_link_type, bpf_map_info, bpf_prog_info};

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: `attr` is a whole `union bpf_attr`; pointers in it are valid for the call by its callers below.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn zeroed() -> bpf_attr {
    // SAFETY: a union of plain integers, for which zero is valid and means "unset".
    unsafe { mem::zeroed() }
}

/// Opens a pinned object.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    let fd = bpf(bpf_cmd::BPF_OBJ_GET, &mut attr)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces the program of a link. No packet and no call sees the hook without one.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.link_update.link_fd = link.as_raw_fd() as u32;
    attr.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// Detaches a link at once, whoever else holds it (Linux 5.9).
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.link_detach.link_fd = link.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr).map(drop)
}

/// Pins an object where nothing is.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attr.__bindgen_anon_4.bpf_fd = object.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// The program's id.
    pub(super) program: u32,
    /// Index of the interface, or id of the cgroup; zero when it is detached.
    pub(super) place: u64,
}

/// Of an XDP, TCX or cgroup link.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // SAFETY: a structure of plain integers.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    let mut attr = zeroed();
    attr.info.bpf_fd = link.as_raw_fd() as u32;
    attr.info.info_len = size_of::<bpf_link_info>() as u32;
    attr.info.info = &raw mut info as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let place = if info.type_ == bpf_link_type::BPF_LINK_TYPE_CGROUP as u32 {
        // SAFETY: the part of the union of a cgroup's link.
        unsafe { info.__bindgen_anon_1.cgroup.cgroup_id }
    } else {
        // SAFETY: XDP and TCX keep the interface index as the first member of their part of the union.
        unsafe { info.__bindgen_anon_1.xdp.ifindex }.into()
    };
    Ok(LinkInfo { program: info.prog_id, place })
}

/// The id of a map or of a link: in what the kernel says of either it is the second number.
pub(super) fn object_id(object: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = [0_u32; 2];
    let mut attr = zeroed();
    attr.info.bpf_fd = object.as_raw_fd() as u32;
    attr.info.info_len = size_of_val(&info) as u32;
    attr.info.info = info.as_mut_ptr() as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info[1])
}

/// The ids of the maps that a program uses, at most 64 of them.
pub(super) fn program_maps(id: u32) -> io::Result<Vec<u32>> {
    let mut attr = zeroed();
    attr.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
    let fd = bpf(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attr)?;
    // SAFETY: the kernel has just made this descriptor for us.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut maps = vec![0_u32; 64];
    // SAFETY: a structure of plain integers.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    info.nr_map_ids = maps.len() as u32;
    info.map_ids = maps.as_mut_ptr() as u64;
    let mut attr = zeroed();
    attr.info.bpf_fd = program.as_raw_fd() as u32;
    attr.info.info_len = size_of::<bpf_prog_info>() as u32;
    attr.info.info = &raw mut info as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    maps.truncate(info.nr_map_ids as usize);
    Ok(maps)
}

/// The word under a word; none if there is none. Of a map of maps it is the inner map's id.
pub(super) fn lookup(map: BorrowedFd<'_>, key: u32) -> io::Result<Option<u32>> {
    let mut value = 0_u32;
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = &raw const key as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = &raw mut value as u64;
    match bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        outcome => outcome.map(|_| Some(value)),
    }
}

/// Writes one element of a map.
fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = std::ptr::from_ref(key) as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = std::ptr::from_ref(value) as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Deletes one element of a map, whether or not it is there.
pub(super) fn delete<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = std::ptr::from_ref(key) as u64;
    match bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attr) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// `ENOTSUPP`, which is the kernel's own: this type of map knows no batches, as maps of maps before Linux 5.19 ("bpf: Extend
/// batch operations for map-in-map bpf-maps"), and maps of devices.
const NO_BATCHES: i32 = 524;

/// Writes many elements of a map, with one call where it can be done.
pub(super) fn update_batch<K: Pod, V: Pod>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> io::Result<()> {
    debug_assert_eq!(keys.len(), values.len());
    let count = keys.len().min(values.len());
    if count == 0 {
        return Ok(());
    }
    let mut attr = zeroed();
    attr.batch.map_fd = map.as_raw_fd() as u32;
    attr.batch.keys = keys.as_ptr() as u64;
    attr.batch.values = values.as_ptr() as u64;
    attr.batch.count = count as u32;
    match bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr) {
        Err(error) if error.raw_os_error() == Some(NO_BATCHES) => {
            keys.iter().zip(values).try_for_each(|(key, value)| update(map, key, value))
        }
        outcome => outcome.map(drop),
    }
}

/// Deletes many elements of a map, with one call where it can be done; elements that are not there are skipped.
pub(super) fn delete_batch<K: Pod>(map: BorrowedFd<'_>, keys: &[K]) -> io::Result<()> {
    let mut rest = keys;
    while !rest.is_empty() {
        let mut attr = zeroed();
        attr.batch.map_fd = map.as_raw_fd() as u32;
        attr.batch.keys = rest.as_ptr() as u64;
        attr.batch.count = rest.len() as u32;
        match bpf(bpf_cmd::BPF_MAP_DELETE_BATCH, &mut attr) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // SAFETY: the kernel wrote how many it deleted before the one that is missing.
                let done = unsafe { attr.batch.count } as usize;
                rest = rest.get(done + 1..).unwrap_or_default();
            }
            Err(error) if error.raw_os_error() == Some(NO_BATCHES) => {
                return rest.iter().try_for_each(|key| delete(map, key));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The values of a mapable array.
pub(super) struct Values<V> {
    start: *mut libc::c_void,
    bytes: usize,
    count: usize,
    value: std::marker::PhantomData<V>,
}

/// Maps the values of an array into this process, for reading.
pub(super) fn map_values<V: Pod>(map: BorrowedFd<'_>) -> io::Result<Values<V>> {
    // SAFETY: a structure of plain integers.
    let mut info: bpf_map_info = unsafe { mem::zeroed() };
    let mut attr = zeroed();
    attr.info.bpf_fd = map.as_raw_fd() as u32;
    attr.info.info_len = size_of::<bpf_map_info>() as u32;
    attr.info.info = &raw mut info as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    if info.value_size as usize != size_of::<V>() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let count = info.max_entries as usize;
    let bytes = (count * size_of::<V>()).next_multiple_of(4_096);
    // SAFETY: a new mapping, which nothing else refers to.
    let start = unsafe {
        libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_SHARED, map.as_raw_fd(), 0)
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(Values { start, bytes, count, value: std::marker::PhantomData })
}

impl<V: Pod> Values<V> {
    /// All of them, as they are when they are reached.
    pub(super) fn iter(&self) -> impl Iterator<Item = V> {
        (0..self.count).filter_map(|index| self.get(index))
    }

    /// One of them.
    pub(super) fn get(&self, index: usize) -> Option<V> {
        if index >= self.count {
            return None;
        }
        // SAFETY: `count` values lie in the mapping, and each bit pattern is one; of what programs change meanwhile each word
        // is read as it was or as it becomes.
        Some(unsafe { self.start.cast::<V>().add(index).read_volatile() })
    }
}

impl<V> Drop for Values<V> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own.
        unsafe { libc::munmap(self.start, self.bytes) };
    }
}
