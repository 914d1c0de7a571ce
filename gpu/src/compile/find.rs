//! Where NVRTC lies, without any environment variable.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where NVRTC may lie: a folder `.cuda` of the project (`pip install --target .cuda nvidia-cuda-nvrtc`), toolkits in
/// their usual places, and Python's packages.
pub(super) fn folders() -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = Vec::new();
    let starts = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    for start in starts.iter().flatten() {
        roots.extend(start.ancestors().map(|folder| folder.join(".cuda")).filter(|folder| folder.is_dir()));
    }
    let mut found: Vec<PathBuf> = roots.iter().flat_map(|root| wheel_folders(root)).collect();
    found.extend(toolkit_folders());
    found.extend(python_paths().iter().flat_map(|root| wheel_folders(root)));
    found
}

/// The folders in which NVIDIA's wheels put their libraries, below a folder of Python packages.
fn wheel_folders(packages: &Path) -> Vec<PathBuf> {
    ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"]
        .map(|folder| packages.join(folder))
        .into_iter()
        .filter(|folder| folder.is_dir())
        .collect()
}

fn toolkit_folders() -> Vec<PathBuf> {
    let mut toolkits = vec![PathBuf::from("/usr/local/cuda"), PathBuf::from("/opt/cuda")];
    if let Ok(entries) = fs::read_dir("/usr/local") {
        let mut versions: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        versions.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cuda-")));
        versions.sort();
        toolkits.extend(versions.into_iter().rev());
    }
    let below = |toolkit: &PathBuf| ["lib64", "targets/x86_64-linux/lib", "lib"].map(|folder| toolkit.join(folder));
    let mut folders: Vec<PathBuf> = toolkits.iter().flat_map(below).collect();
    folders.push(PathBuf::from("/usr/lib/x86_64-linux-gnu"));
    folders.retain(|folder| folder.is_dir());
    folders
}

/// The folders that Python imports from, where there is a Python: asked last, because it takes a process.
fn python_paths() -> Vec<PathBuf> {
    let script = "import sys; print('\\n'.join(sys.path))";
    let Ok(output) = Command::new("python3").args(["-c", script]).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect()
}

/// NVRTC libraries in `folder`, newest first, each with its builtins.
pub(super) fn libraries(folder: &Path) -> Vec<(PathBuf, Option<PathBuf>)> {
    let names = |prefix: &str| {
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
        found.sort();
        found.reverse();
        found
    };
    let builtins = names("libnvrtc-builtins.so").into_iter().next();
    names("libnvrtc.so").into_iter().map(|path| (path, builtins.clone())).collect()
}
