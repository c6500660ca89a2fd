//! A file system of our own on a loop device, so that nobody else's writes are counted.
//!
//! Promises: unmounted and removed when dropped.
//! Never: used for timing: two file systems lie on top of each other.

use crate::problem::{Outcome, Problem, Trying};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Octets of the volume; the file is sparse.
const VOLUME_OCTETS: u64 = 6 << 30;

/// A mounted volume.
#[derive(Debug)]
pub struct Volume {
    image: PathBuf,
    folder: PathBuf,
}

impl Volume {
    /// Makes and mounts an ext4 in `folder`.
    ///
    /// # Errors
    /// Without root, loop devices or mkfs.ext4: the sentence says which.
    pub fn mount(folder: &Path) -> Outcome<Self> {
        let image = folder.join("volume.img");
        File::create(&image)
            .and_then(|f| f.set_len(VOLUME_OCTETS))
            .trying(|| image.display().to_string())?;
        let volume = Self {
            image,
            folder: folder.join("volume"),
        };
        std::fs::create_dir_all(&volume.folder).trying(|| volume.folder.display().to_string())?;
        // Nothing may be left to be written in the background later.
        let ready = "lazy_itable_init=0,lazy_journal_init=0";
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-E", ready])
            .arg(&volume.image))?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&volume.image)
            .arg(&volume.folder))?;
        Ok(volume)
    }

    /// Where it is mounted.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg(&self.folder));
        let _ = std::fs::remove_file(&self.image);
    }
}

fn run(command: &mut Command) -> Outcome<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().trying(|| name.clone())?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(Problem(format!("{name}: {}", words.trim())))
}
