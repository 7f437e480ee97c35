use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{LabError, netns};

/// A directory with a BPF file system of its own, where a laboratory's daemon keeps its pins and finds its manifests.
/// Unmounted and removed on drop, and with it every program, map and link that only its pins held.
#[derive(Debug)]
pub struct Workspace {
    path: PathBuf,
}

impl Workspace {
    /// A new one in the directory for temporary files.
    ///
    /// # Errors
    ///
    /// When it cannot be made or mounted.
    pub fn new() -> Result<Self, LabError> {
        let path = loop {
            let path = env::temp_dir().join(format!("ptc-{}-{}", process::id(), netns::number()));
            match fs::create_dir(&path) {
                Ok(()) => break path,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(LabError::file("create", path)(e)),
            }
        };
        let workspace = Self { path };
        for directory in [workspace.bpffs(), workspace.manifests()] {
            fs::create_dir(&directory).map_err(LabError::file("create", directory))?;
        }
        mount(Some("bpf"), &workspace.bpffs(), Some("bpf"), MsFlags::empty(), None::<&str>)
            .map_err(LabError::system(format!("mount bpf on {}", workspace.bpffs().display())))?;
        Ok(workspace)
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The BPF file system.
    #[must_use]
    pub fn bpffs(&self) -> PathBuf {
        self.path.join("bpf")
    }

    /// For `--pin-dir`; the daemon makes it.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.bpffs().join("portico")
    }

    /// For `--manifests`; exists.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.path.join("manifests")
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = umount2(&self.bpffs(), MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&self.path);
    }
}
