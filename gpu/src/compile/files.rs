//! The kernels' text, embedded in the binary so that a carried executable needs no file beside it.

/// A file of `kernels/`. Names are unique, so that an `#include` needs no folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Whose it is: a rung's, or what rungs share.
    pub folder: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What stands in it.
    pub text: &'static str,
}

const fn of(folder: &'static str, name: &'static str, text: &'static str) -> File {
    File { folder, name, text }
}

/// Every file of the kernels that answer.
pub const FILES: &[File] = &[
    of("shared", "common.cuh", include_str!("../../kernels/shared/common.cuh")),
    of("tensor", "mma.cuh", include_str!("../../kernels/tensor/mma.cuh")),
    of("shared", "rows.cuh", include_str!("../../kernels/shared/rows.cuh")),
    of("shared", "tasks.cuh", include_str!("../../kernels/shared/tasks.cuh")),
    of("inversion", "visits.cuh", include_str!("../../kernels/inversion/visits.cuh")),
    of("shared", "delta.cu", include_str!("../../kernels/shared/delta.cu")),
    of("shared", "dkdv_merge.cu", include_str!("../../kernels/shared/dkdv_merge.cu")),
    of("plain", "dkdv_plain.cu", include_str!("../../kernels/plain/dkdv_plain.cu")),
    of("tensor", "dkdv_tensor.cu", include_str!("../../kernels/tensor/dkdv_tensor.cu")),
    of("plain", "dq_plain.cu", include_str!("../../kernels/plain/dq_plain.cu")),
    of("tensor", "dq_tensor.cu", include_str!("../../kernels/tensor/dq_tensor.cu")),
    of("plain", "forward_plain.cu", include_str!("../../kernels/plain/forward_plain.cu")),
    of("tensor", "forward_tensor.cu", include_str!("../../kernels/tensor/forward_tensor.cu")),
    of("inversion", "visit_count.cu", include_str!("../../kernels/inversion/visit_count.cu")),
    of("inversion", "visit_fill.cu", include_str!("../../kernels/inversion/visit_fill.cu")),
    of("inversion", "visit_scan.cu", include_str!("../../kernels/inversion/visit_scan.cu")),
];

/// The kernels that check the others; no result is theirs.
pub const CHECKS: &[File] = &[
    of("checks", "gate.cu", include_str!("../../kernels/checks/gate.cu")),
    of("checks", "poison.cu", include_str!("../../kernels/checks/poison.cu")),
    of("checks", "probe.cu", include_str!("../../kernels/checks/probe.cu")),
];

/// The file of this name.
pub fn file(name: &str) -> Option<&'static File> {
    FILES.iter().chain(CHECKS).find(|file| file.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_every_folder_is_embedded() {
        let kernels = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let mut found: Vec<String> = Vec::new();
        for folder in kernels.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
            let names = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let folder = folder.file_name().unwrap().to_str().unwrap().to_owned();
            found.extend(names.filter(|name| name != "mutants.toml").map(|name| format!("{folder}/{name}")));
        }
        let embedded = FILES.iter().chain(CHECKS).map(|file| format!("{}/{}", file.folder, file.name));
        let mut embedded: Vec<String> = embedded.collect();
        found.sort();
        embedded.sort();
        assert_eq!(found, embedded);
        for file in FILES.iter().chain(CHECKS) {
            let path = kernels.join(file.folder).join(file.name);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), file.text, "{}", path.display());
        }
        let mut names: Vec<&str> = FILES.iter().chain(CHECKS).map(|file| file.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), embedded.len(), "a name stands in two folders");
    }

    #[test]
    fn each_file_holds_one_kernel_of_its_own_name_and_opens_with_its_formula() {
        for File { name: file, text, .. } in FILES.iter().chain(CHECKS).filter(|file| file.name.ends_with(".cu")) {
            let name = file.strip_suffix(".cu").unwrap();
            assert_eq!(text.matches("__global__").count(), 1, "{file}");
            assert!(text.contains(&format!("\n{name}(")), "{file}");
            assert!(text.starts_with(&format!("// {name}: ")), "{file}");
            for part in ["// Shapes: ", "// Launch: ", "// Accumulation: "] {
                assert!(text.contains(part), "{file} does not say {part}");
            }
        }
    }
}
