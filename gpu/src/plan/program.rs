//! A kernel and what it is specialised by: what a compiler is given.

use nsa_corpus::Dtype;

use super::workspace::Workspace;

/// The formats that kernels take, by the number that their macro `ELEMENT` has.
pub(super) const ELEMENTS: &[Dtype] = &[Dtype::F32, Dtype::F16, Dtype::Bf16];

/// The macro that holds the larger stride of rows that are set apart.
pub(crate) const ROW_STRIDE: &str = "ROW_STRIDE";

/// A kernel and the macros that it is specialised by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Program {
    /// The kernel's name, and its file's without the ending.
    pub kernel: &'static str,
    /// Macro and value, in order.
    pub defines: Vec<(&'static str, usize)>,
    /// The workspace whose rows are set apart; `None`: each is dense.
    pub far: Option<Workspace>,
}

impl Program {
    pub(super) fn new(kernel: &'static str, dtype: Dtype, mut defines: Vec<(&'static str, usize)>) -> Self {
        let number = ELEMENTS.iter().position(|known| *known == dtype).expect("`supports` refuses other elements");
        defines.insert(0, ("ELEMENT", number));
        Program { kernel, defines, far: None }
    }

    /// A kernel that checks the others: `poison`, `probe` or `gate`.
    pub fn check(kernel: &'static str) -> Self {
        Program { kernel, defines: Vec::new(), far: None }
    }

    /// The same with rows of `workspace` `stride` elements apart.
    pub(super) fn with_far_rows(mut self, workspace: Workspace, stride: usize) -> Self {
        self.defines.push((ROW_STRIDE, stride));
        self.far = Some(workspace);
        self
    }

    /// The compiler's flags, whatever the architecture. No fast-math: division, denormals and exponentials are exact
    /// to the declared arithmetic.
    pub fn flags(&self) -> Vec<String> {
        let mut flags: Vec<String> =
            ["--std=c++17", "--fmad=true", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "--ptxas-options=-v"]
                .map(str::to_owned)
                .into();
        flags.extend(self.defines.iter().map(|(name, value)| format!("-D{name}={value}")));
        flags
    }

    /// Kernel and macros in one word: `forward_plain ELEMENT=1 DIM_STEPS=2 VALUE_STEPS=2`.
    pub fn label(&self) -> String {
        let defines = self.defines.iter().map(|(name, value)| format!(" {name}={value}"));
        std::iter::once(self.kernel.to_owned()).chain(defines).collect()
    }
}
