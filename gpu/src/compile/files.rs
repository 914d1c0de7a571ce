//! The kernels' text, embedded in the binary so that a carried executable needs no file beside it.

/// Every file of `kernels/`: name and text.
pub const FILES: &[(&str, &str)] = &[
    ("common.cuh", include_str!("../../kernels/common.cuh")),
    ("mma.cuh", include_str!("../../kernels/mma.cuh")),
    ("rows.cuh", include_str!("../../kernels/rows.cuh")),
    ("tasks.cuh", include_str!("../../kernels/tasks.cuh")),
    ("visits.cuh", include_str!("../../kernels/visits.cuh")),
    ("delta.cu", include_str!("../../kernels/delta.cu")),
    ("dkdv_merge.cu", include_str!("../../kernels/dkdv_merge.cu")),
    ("dkdv_plain.cu", include_str!("../../kernels/dkdv_plain.cu")),
    ("dkdv_tensor.cu", include_str!("../../kernels/dkdv_tensor.cu")),
    ("dq_plain.cu", include_str!("../../kernels/dq_plain.cu")),
    ("dq_tensor.cu", include_str!("../../kernels/dq_tensor.cu")),
    ("forward_plain.cu", include_str!("../../kernels/forward_plain.cu")),
    ("forward_tensor.cu", include_str!("../../kernels/forward_tensor.cu")),
    ("visit_count.cu", include_str!("../../kernels/visit_count.cu")),
    ("visit_fill.cu", include_str!("../../kernels/visit_fill.cu")),
    ("visit_scan.cu", include_str!("../../kernels/visit_scan.cu")),
];

/// The kernels that check the others; no result is theirs.
pub const CHECKS: &[(&str, &str)] = &[
    ("gate.cu", include_str!("../../kernels/checks/gate.cu")),
    ("poison.cu", include_str!("../../kernels/checks/poison.cu")),
    ("probe.cu", include_str!("../../kernels/checks/probe.cu")),
];

/// The text of a file of `kernels/`.
pub fn text(file: &str) -> Option<&'static str> {
    FILES.iter().chain(CHECKS).find(|(name, _)| *name == file).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_embedded() {
        let kernels = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let files = [kernels.clone(), kernels.join("checks")].into_iter().flat_map(|folder| folder.read_dir().unwrap());
        let files = files.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        let mut names: Vec<String> = files.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        let mut embedded: Vec<String> = FILES.iter().chain(CHECKS).map(|(name, _)| (*name).to_owned()).collect();
        names.sort();
        embedded.sort();
        assert_eq!(names, embedded);
    }

    #[test]
    fn each_file_holds_one_kernel_of_its_own_name_and_opens_with_its_formula() {
        for (file, text) in FILES.iter().chain(CHECKS).filter(|(file, _)| file.ends_with(".cu")) {
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
