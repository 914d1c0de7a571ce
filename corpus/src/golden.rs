//! Files of inputs with or without answers: what PyTorch's `regular_attend` answered, and plain activations.

use std::collections::BTreeSet;
use std::path::Path;

use ndarray::{Array, Dimension};
use serde_json::{Value, json};

use crate::files::write_atomically;
use crate::selection::settle_masked;
use crate::{
    Cotangents, Dtype, Error, Field, InputParts, Inputs, Limit, Outputs, Shape, Sizes, Tensor, TensorFile,
    TensorFileBuilder, embedded, foreign,
};

pub use crate::golden_header::Options;

/// Inputs and the answers stored beside them.
///
/// Tensors: `q`, `k`, `v`, `indices` (I64 or I32), `mask` (BOOL or U8), and where given `sel_scale`, `d_out`, `d_lse`,
/// `d_sliding`; answers by the names of [`Field`], any of which may be missing. The header's metadata holds either
/// `config`, a JSON object with `block_size`, `sliding_window_size` (null: no sliding output) and perhaps
/// `include_block_causal`, or, in the plain form, `block_size` and perhaps `sliding_window` and `include_block_causal`. What
/// else may stand there is listed in `docs/corpus-format.md`; anything that is not is refused.
#[derive(Clone, Debug)]
pub struct GoldenCase {
    /// The file's name without its ending.
    pub name: String,
    /// The problem. Its element is the widest format of the floating-point inputs, so that nothing is rounded.
    pub inputs: Inputs,
    /// The answers that are there.
    pub outputs: Outputs,
    /// The header's `config`; null in the plain form.
    pub config: Value,
}

/// The golden answers that the binary carries.
///
/// # Panics
/// Never: a test reads every one of them.
pub fn embedded() -> Vec<GoldenCase> {
    let read = |(path, bytes): &(&str, &[u8])| {
        TensorFile::parse(bytes.to_vec()).and_then(|file| GoldenCase::from_file(&stem(Path::new(path)), &file))
    };
    embedded::GOLDEN.iter().map(|file| read(file).expect("a test reads every embedded file")).collect()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

impl GoldenCase {
    /// A problem and its answers, with a `config` that describes them.
    pub fn new(name: &str, inputs: Inputs, outputs: Outputs) -> Self {
        let shape = inputs.shape();
        let config = json!({
            "batch": shape.batch(),
            "block_size": shape.block_size(),
            "dim": shape.dim(),
            "dtype": inputs.dtype().name(),
            "include_block_causal": inputs.include_block_causal(),
            "kv_heads": shape.kv_heads(),
            "name": name,
            "num_sel": shape.num_sel(),
            "q_heads": shape.q_heads(),
            "sel_heads": shape.sel_heads(),
            "seq_len": shape.seq_len(),
            "sliding_window_size": inputs.sliding_window(),
            "value_dim": shape.value_dim(),
        });
        GoldenCase { name: name.to_owned(), inputs, outputs, config }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// One line that names the file: it is no tensor file, a tensor or `block_size` is missing or of a wrong type, the
    /// tensors do not fit each other or what the header says of them, a name is unknown, or the problem is larger than
    /// [`Limit::FILE`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = TensorFile::read(path)?;
        Self::from_file(&stem(path), &file).map_err(|error| error.in_file(path))
    }

    /// The case that a file holds.
    ///
    /// # Errors
    /// As [`GoldenCase::read`].
    pub fn from_file(name: &str, file: &TensorFile) -> Result<Self, Error> {
        let options = Options::of(file)?;
        Self::assemble(name, file, options)
    }

    /// The case that a file of inputs holds, with `block_size` from outside where the file has none, or another.
    ///
    /// # Errors
    /// As [`GoldenCase::read`].
    pub fn read_with(path: impl AsRef<Path>, change: impl FnOnce(&mut Options)) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = TensorFile::read(path)?;
        let case = Options::of(&file).and_then(|mut options| {
            change(&mut options);
            Self::assemble(&stem(path), &file, options)
        });
        case.map_err(|error| error.in_file(path))
    }

    fn assemble(name: &str, file: &TensorFile, options: Options) -> Result<Self, Error> {
        let Some(block_size) = options.block_size else {
            return Err(Error::invalid("the header's metadata has neither `config` nor `block_size`"));
        };
        file.only_tensors(&names())?;
        let format = one_format(file)?;
        // Before a tensor is read.
        let sizes = sizes(file, block_size)?;
        Limit::FILE.check(&sizes)?;
        options.check(&sizes, format, file.has("d_lse"))?;
        let optional = |name: &str| file.has(name).then(|| four(file, name)).transpose();
        let mut indices = axes("indices", file.get_i64("indices")?)?;
        let mask = axes("mask", file.get_bool("mask")?)?;
        settle_masked(&mut indices, &mask, Shape::new(sizes)?.blocks());
        let inputs = Inputs::new(InputParts {
            block_size,
            include_block_causal: options.include_block_causal,
            sliding_window: options.sliding_window,
            dtype: widest(file, format)?,
            q: four(file, "q")?,
            k: four(file, "k")?,
            v: four(file, "v")?,
            indices,
            mask,
            sel_scale: optional("sel_scale")?,
            cotangents: Cotangents {
                d_out: optional("d_out")?,
                d_lse: file.has("d_lse").then(|| axes("d_lse", file.get_f64("d_lse")?)).transpose()?,
                d_sliding: optional("d_sliding")?,
            },
        })?;
        let outputs = answers(file, &inputs)?;
        Ok(GoldenCase { name: name.to_owned(), inputs, outputs, config: options.config })
    }

    /// The file's bytes, in the golden format: inputs in their own element, answers as F64. The same case gives the same
    /// bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut file = TensorFileBuilder::new();
        file.metadata("config", self.config.to_string());
        store_inputs(&mut file, &self.inputs);
        for (field, tensor) in self.outputs.iter() {
            file.float(field.name(), Dtype::F64, tensor);
        }
        file.to_bytes()
    }

    /// Writes [`GoldenCase::to_bytes`], atomically.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        write_atomically(path, &self.to_bytes())
    }
}

/// The tensors of `inputs`, by their usual names, in their own element.
pub(crate) fn store_inputs(file: &mut TensorFileBuilder, inputs: &Inputs) {
    let (dtype, cotangents) = (inputs.dtype(), inputs.cotangents());
    file.float("q", dtype, inputs.q()).float("k", dtype, inputs.k()).float("v", dtype, inputs.v());
    file.whole("indices", &inputs.indices().mapv(i64::from)).truth("mask", inputs.mask());
    for (name, tensor) in [
        ("sel_scale", inputs.sel_scale()),
        ("d_out", cotangents.d_out.as_ref()),
        ("d_sliding", cotangents.d_sliding.as_ref()),
    ] {
        tensor.into_iter().for_each(|tensor| {
            file.float(name, dtype, tensor);
        });
    }
    cotangents.d_lse.iter().for_each(|tensor| {
        file.float("d_lse", dtype, tensor);
    });
}

/// The names that tensors of this form have.
fn names() -> BTreeSet<String> {
    let inputs = Tensor::ALL.into_iter().map(Tensor::name);
    inputs.chain(Field::ALL.into_iter().map(Field::name)).map(str::to_owned).collect()
}

/// The format of q, k and v: a kernel has one.
fn one_format(file: &TensorFile) -> Result<Dtype, Error> {
    let format = |name: &str| {
        let none = || Error::invalid(format!("tensor `{name}` holds no floating-point numbers"));
        file.dtype(name)?.ok_or_else(none)
    };
    let [q, k, v] = [format("q")?, format("k")?, format("v")?];
    match [("k", k), ("v", v)].into_iter().find(|(_, found)| *found != q) {
        Some((name, found)) => Err(Error::invalid(format!("{name}: {found}, q: {q}; expected the same"))),
        None => Ok(q),
    }
}

/// The sizes that the shapes of q, k, v and indices say; whether the other tensors agree is checked where inputs are built.
fn sizes(file: &TensorFile, block_size: usize) -> Result<Sizes, Error> {
    let four = |name: &str| {
        let shape = file.shape(name)?;
        <[usize; 4]>::try_from(shape).map_err(|_| wrong_axes(name, shape.len(), 4))
    };
    let [batch, q_heads, seq_len, dim] = four("q")?;
    let [_, kv_heads, _, _] = four("k")?;
    let [_, _, _, value_dim] = four("v")?;
    let [_, sel_heads, _, num_sel] = four("indices")?;
    Ok(Sizes { batch, q_heads, kv_heads, seq_len, dim, value_dim, block_size, num_sel, sel_heads })
}

/// The format that holds every floating-point input exactly; `format` is that of q, k and v.
fn widest(file: &TensorFile, format: Dtype) -> Result<Dtype, Error> {
    let mut widest = format;
    for name in ["sel_scale", "d_out", "d_lse", "d_sliding"].into_iter().filter(|name| file.has(name)) {
        widest = match (widest, file.dtype(name)?) {
            // Neither 16-bit format holds the other; f32 holds both.
            (Dtype::F16, Some(Dtype::Bf16)) | (Dtype::Bf16, Some(Dtype::F16)) => Dtype::F32,
            (found, next) => Dtype::min(found, next.unwrap_or(found)),
        };
    }
    Ok(widest)
}

fn four(file: &TensorFile, name: &str) -> Result<ndarray::Array4<f64>, Error> {
    axes(name, file.get_f64(name)?)
}

fn axes<A, D: Dimension>(name: &str, tensor: ndarray::ArrayD<A>) -> Result<Array<A, D>, Error> {
    let found = tensor.ndim();
    let expected = D::NDIM.unwrap_or(found);
    tensor.into_dimensionality().map_err(|_| wrong_axes(name, found, expected))
}

fn wrong_axes(name: &str, found: usize, expected: usize) -> Error {
    Error::invalid(format!("tensor {} has {found} axes, expected {expected}", foreign::quoted(name)))
}

fn answers(file: &TensorFile, inputs: &Inputs) -> Result<Outputs, Error> {
    let mut outputs = Outputs::new();
    for field in Field::ALL.into_iter().filter(|field| file.has(field.name())) {
        let (found, expected) = (file.shape(field.name())?, field.shape(inputs.shape()));
        if found != expected {
            return Err(Error::invalid(format!("{field} has shape {found:?}, expected {expected:?}")));
        }
        outputs.set(field, file.get_f64(field.name())?);
    }
    Ok(outputs)
}
