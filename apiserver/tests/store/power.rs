//! A disk whose power can be cut: an ext4 file system on a loop device.
//!
//! The image behind the device holds what the kernel has written to the device; what sits dirty in the page cache
//! of the file system is not in it. A copy of the image is what a power cut leaves of a disk that keeps what it was
//! sent. (A disk that also loses what it was sent and not told to flush is not modelled; the store flushes with
//! every `fdatasync`.)

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const IMAGE_BYTES: u64 = 96 << 20;

/// A mounted disk. Unmounted when dropped.
pub struct Disk {
    folder: PathBuf,
    number: usize,
}

impl Disk {
    /// Makes and mounts a disk in a folder. Says why not, where that cannot be.
    pub fn format(folder: &Path) -> Result<Self, String> {
        let disk = Self { folder: folder.to_owned(), number: 0 };
        let image = fs::File::create(disk.image()).map_err(|error| error.to_string())?;
        image.set_len(IMAGE_BYTES).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", &text(&disk.image())])?;
        disk.attach()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn mount(&self) -> PathBuf {
        self.folder.join(format!("mount-{}", self.number))
    }

    fn image(&self) -> PathBuf {
        self.folder.join(format!("image-{}", self.number))
    }

    fn attach(&self) -> Result<(), String> {
        fs::create_dir_all(self.mount()).map_err(|error| error.to_string())?;
        run("mount", &["-o", "loop", &text(&self.image()), &text(&self.mount())])
    }

    /// The disk as it comes back after a power cut now. Whoever writes to it must be frozen.
    pub fn cut_power(&self) -> Self {
        let after = Self { folder: self.folder.clone(), number: self.number + 1 };
        // The kernel may be writing back by itself: a copy counts when nothing changed while it was made.
        super::wait_until("the image stays as it is", || {
            fs::copy(self.image(), after.image()).unwrap();
            fs::read(self.image()).unwrap() == fs::read(after.image()).unwrap()
        });
        after.attach().unwrap();
        after
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a killed child may still hold files for a moment.
        let _ = run("umount", &["-l", &text(&self.mount())]);
        let _ = fs::remove_file(self.image());
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
