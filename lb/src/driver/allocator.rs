//! How the C library's allocator treats large blocks.

/// From so many bytes on a block is a mapping of its own, which goes back to the kernel when it is freed.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 1 << 20;

/// Has the memory of large blocks go back to the kernel as soon as they are freed. Else glibc raises the size of what it
/// takes for large with each such block, up to 32 MiB, and from then on each thread keeps up to twice as much: reading a
/// large manifest once would cost a multiple of its size for as long as the process lives.
pub fn give_back_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers; it may be called at any time. If it fails, nothing has changed.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}
