//! What the header of a file of inputs says beside its tensors: the options of the problem, claims that are held against the
//! tensors, and descriptions. A key of any other kind could change what is meant, so it is refused.

use serde_json::{Map, Value};

use crate::foreign;
use crate::unique::Unique;
use crate::{Dtype, Error, Sizes, TensorFile};

/// Metadata that describe a file of either form and are not read.
const DESCRIPTIONS: [&str; 3] = ["format", "note", "source"];
/// Keys of `config` that describe how inputs were drawn and answers computed, and are not read.
const CONFIG_DESCRIPTIONS: [&str; 19] = [
    "cotangent",
    "einops_version",
    "einx_version",
    "indices_kind",
    "inputs_exact_in",
    "integer_qk",
    "k_scale",
    "mask_kind",
    "name",
    "note",
    "q_scale",
    "reference",
    "seed",
    "sel_scale_kind",
    "sliding_window_is_default",
    "source",
    "tags",
    "torch_version",
    "v_scale",
];

/// The options that a file's header gives, to be changed by [`GoldenCase::read_with`](crate::GoldenCase::read_with).
#[derive(Clone, Debug)]
pub struct Options {
    /// Keys in a block; a file without it is refused.
    pub block_size: Option<usize>,
    /// The sliding output's window.
    pub sliding_window: Option<usize>,
    /// Whether a query attends to its own block up to itself; true where the header does not say.
    pub include_block_causal: bool,
    pub(crate) config: Value,
    claims: Claims,
}

/// What `config` says of the tensors.
#[derive(Clone, Debug, Default)]
struct Claims {
    sizes: Vec<(String, usize)>,
    dtype: Option<Dtype>,
    has_d_lse: Option<bool>,
}

impl Options {
    /// The options of a header of either form.
    pub(crate) fn of(file: &TensorFile) -> Result<Self, Error> {
        let form: &[&str] = match file.metadata("config") {
            Some(_) => &["config"],
            None => &["block_size", "sliding_window", "include_block_causal"],
        };
        if let Some((key, _)) = file.metadata_all().find(|(key, _)| !form.contains(key) && !DESCRIPTIONS.contains(key))
        {
            let (key, form) = (foreign::quoted(key), form.join(", "));
            return Err(Error::invalid(format!("metadata {key} is unknown beside {form}: it would have no effect")));
        }
        match file.metadata("config") {
            Some(config) => Self::of_config(config),
            None => Ok(Options {
                block_size: plain(file, "block_size")?,
                sliding_window: plain(file, "sliding_window")?.map(|window: usize| window.min(i64::MAX as usize)),
                include_block_causal: plain(file, "include_block_causal")?.unwrap_or(true),
                config: Value::Null,
                claims: Claims::default(),
            }),
        }
    }

    fn of_config(config: &str) -> Result<Self, Error> {
        let Unique(fields) = serde_json::from_str::<Unique<Value>>(config)
            .map_err(|error| Error::invalid(format!("the header's `config` is no readable JSON: {error}")))?;
        let mut options = Options {
            block_size: None,
            sliding_window: None,
            include_block_causal: true,
            config: Value::Null,
            claims: Claims::default(),
        };
        for (key, value) in &fields {
            if !known(key) {
                return Err(Error::invalid(format!(
                    "config {} is unknown: it would have no effect",
                    foreign::quoted(key)
                )));
            }
            // `null` is as good as nothing.
            if !value.is_null() {
                options.field(key, value)?;
            }
        }
        options.config = Value::Object(fields.into_iter().collect::<Map<_, _>>());
        Ok(options)
    }

    /// Takes one known field of `config` in.
    fn field(&mut self, key: &str, value: &Value) -> Result<(), Error> {
        match key {
            "block_size" => self.block_size = Some(number(key, value)?),
            "sliding_window_size" => self.sliding_window = Some(number(key, value)?),
            "include_block_causal" => self.include_block_causal = truth(key, value)?,
            "has_d_lse" => self.claims.has_d_lse = Some(truth(key, value)?),
            "dtype" => {
                let name = value.as_str().ok_or_else(|| is_not(key, value, "a format's name"))?;
                self.claims.dtype = Some(name.parse().map_err(|_| is_not(key, value, "f64, f32, f16 or bf16"))?);
            }
            _ if SIZES.iter().any(|(name, _)| *name == key) => {
                self.claims.sizes.push((key.to_owned(), number(key, value)?));
            }
            _ => {}
        }
        Ok(())
    }

    /// Refuses what the header says of the tensors and is not so. `format` is that of q, k and v.
    pub(crate) fn check(&self, sizes: &Sizes, format: Dtype, has_d_lse: bool) -> Result<(), Error> {
        let contradicts = |key: &str, said: &dyn std::fmt::Display, found: &dyn std::fmt::Display| {
            Error::invalid(format!("config `{key}` is {said}, the tensors have {found}"))
        };
        for (name, of) in SIZES {
            let claimed = self.claims.sizes.iter().find(|(claimed, _)| claimed == name);
            if let Some((_, claimed)) = claimed.filter(|(_, claimed)| *claimed != of(sizes)) {
                return Err(contradicts(name, claimed, &of(sizes)));
            }
        }
        if let Some(dtype) = self.claims.dtype.filter(|dtype| *dtype != format) {
            return Err(contradicts("dtype", &dtype, &format));
        }
        match self.claims.has_d_lse.filter(|claimed| *claimed != has_d_lse) {
            Some(claimed) => {
                Err(contradicts("has_d_lse", &claimed, if has_d_lse { &"a `d_lse`" } else { &"no `d_lse`" }))
            }
            None => Ok(()),
        }
    }
}

type Size = fn(&Sizes) -> usize;

/// The sizes that follow from the tensors.
const SIZES: [(&str, Size); 8] = [
    ("batch", |sizes| sizes.batch),
    ("q_heads", |sizes| sizes.q_heads),
    ("kv_heads", |sizes| sizes.kv_heads),
    ("sel_heads", |sizes| sizes.sel_heads),
    ("seq_len", |sizes| sizes.seq_len),
    ("dim", |sizes| sizes.dim),
    ("value_dim", |sizes| sizes.value_dim),
    ("num_sel", |sizes| sizes.num_sel),
];

fn known(key: &str) -> bool {
    let read = ["block_size", "sliding_window_size", "include_block_causal", "has_d_lse", "dtype"];
    read.contains(&key) || SIZES.iter().any(|(name, _)| *name == key) || CONFIG_DESCRIPTIONS.contains(&key)
}

/// A whole number that TOML, whose integers are signed, can hold too.
fn number(key: &str, value: &Value) -> Result<usize, Error> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number.filter(|number| i64::try_from(*number).is_ok()).ok_or_else(|| is_not(key, value, "a whole number"))
}

fn truth(key: &str, value: &Value) -> Result<bool, Error> {
    value.as_bool().ok_or_else(|| is_not(key, value, "true or false"))
}

fn is_not(key: &str, value: &Value, expected: &str) -> Error {
    Error::invalid(format!("config `{key}` is {}, expected {expected}", foreign::short(&value.to_string(), 40)))
}

fn plain<T: std::str::FromStr>(file: &TensorFile, key: &str) -> Result<Option<T>, Error> {
    let parse = |text: &str| {
        let refused = |_| Error::invalid(format!("metadata `{key}` is \"{}\"", foreign::short(text, 40)));
        text.trim().to_lowercase().parse().map_err(refused)
    };
    file.metadata(key).map(parse).transpose()
}
