//! A case: a problem as plain data, from which its tensors follow.

use ndarray::{Array, Array4, ArrayD, Dimension, Ix3, Ix4};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::rng::Stream;
use crate::selection::{Mask, Selection};
use crate::values::{Given, Reader, Values};
use crate::{Cotangents, Element, Error, InputParts, Inputs, Shape, Sizes};

/// A tensor of a problem's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tensor {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// Selected blocks.
    Indices,
    /// Live slots.
    Mask,
    /// Factors of the slots' scores.
    SelScale,
    /// Cotangent of `out`.
    DOut,
    /// Cotangent of `lse`.
    DLse,
    /// Cotangent of `sliding_out`.
    DSliding,
}

impl Tensor {
    /// Every input tensor.
    pub const ALL: [Tensor; 9] = [
        Tensor::Q,
        Tensor::K,
        Tensor::V,
        Tensor::Indices,
        Tensor::Mask,
        Tensor::SelScale,
        Tensor::DOut,
        Tensor::DLse,
        Tensor::DSliding,
    ];

    /// The name used in files.
    pub fn name(self) -> &'static str {
        match self {
            Tensor::Q => "q",
            Tensor::K => "k",
            Tensor::V => "v",
            Tensor::Indices => "indices",
            Tensor::Mask => "mask",
            Tensor::SelScale => "sel_scale",
            Tensor::DOut => "d_out",
            Tensor::DLse => "d_lse",
            Tensor::DSliding => "d_sliding",
        }
    }

    /// Its shape in a problem of `shape`.
    pub fn shape(self, shape: &Shape) -> Vec<usize> {
        let (b, n) = (shape.batch(), shape.seq_len());
        match self {
            Tensor::Q => vec![b, shape.q_heads(), n, shape.dim()],
            Tensor::K => vec![b, shape.kv_heads(), n, shape.dim()],
            Tensor::V => vec![b, shape.kv_heads(), n, shape.value_dim()],
            Tensor::Indices | Tensor::Mask | Tensor::SelScale => vec![b, shape.sel_heads(), n, shape.num_sel()],
            Tensor::DOut | Tensor::DSliding => vec![b, shape.q_heads(), n, shape.value_dim()],
            Tensor::DLse => vec![b, shape.q_heads(), n],
        }
    }
}

/// One element set to a value of its own, after the distribution has been drawn.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// The tensor.
    pub tensor: Tensor,
    /// The position, one number for each axis.
    pub index: Vec<usize>,
    /// The value; a block number for `indices`, 0 or 1 for `mask`.
    pub value: f64,
}

impl PartialEq for Override {
    fn eq(&self, other: &Self) -> bool {
        (self.tensor, &self.index, self.value.to_bits()) == (other.tensor, &other.index, other.value.to_bits())
    }
}

/// A problem as plain data: sizes, options, a distribution for each tensor, and sparse overrides on top of them. It prints
/// as one TOML table and is identified by the digest of that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "CaseText", into = "CaseText")]
pub struct Case {
    /// The sizes.
    pub sizes: Sizes,
    /// Whether a query attends to its own block up to itself.
    pub include_block_causal: bool,
    /// The sliding output's window, if it is asked for.
    pub sliding_window: Option<usize>,
    /// What the distributions are drawn with.
    pub seed: u64,
    /// Queries.
    pub q: Values,
    /// Keys.
    pub k: Values,
    /// Values.
    pub v: Values,
    /// Selected blocks.
    pub selection: Selection,
    /// Live slots.
    pub mask: Mask,
    /// Factors of the slots' scores.
    pub sel_scale: Option<Values>,
    /// Cotangent of `out`.
    pub d_out: Option<Values>,
    /// Cotangent of `lse`.
    pub d_lse: Option<Values>,
    /// Cotangent of `sliding_out`.
    pub d_sliding: Option<Values>,
    /// Single elements.
    pub overrides: Vec<Override>,
}

impl Case {
    /// A case of ordinary values: bell-shaped tensors, distinct past blocks, no option.
    pub fn ordinary(sizes: Sizes, seed: u64) -> Self {
        Case {
            sizes,
            include_block_causal: true,
            sliding_window: None,
            seed,
            q: Values::normal(),
            k: Values::normal(),
            v: Values::normal(),
            selection: Selection::Past {},
            mask: Mask::All {},
            sel_scale: None,
            d_out: Some(Values::normal()),
            d_lse: None,
            d_sliding: None,
            overrides: Vec::new(),
        }
    }

    /// The checked sizes.
    ///
    /// # Errors
    /// What [`Shape::new`] refuses.
    pub fn shape(&self) -> Result<Shape, Error> {
        Shape::new(self.sizes)
    }

    /// The tensors of this case, rounded to `element`. The same case gives the same bits on every machine.
    ///
    /// # Errors
    /// Sizes that do not fit, a parameter out of its range, a given tensor that is missing or too small, an override
    /// beyond its tensor.
    pub fn materialize(&self, element: Element) -> Result<Inputs, Error> {
        let shape = self.shape()?;
        for (tensor, values) in self.values() {
            values.check(tensor.name())?;
        }
        let [b, n] = [shape.batch(), shape.seq_len()];
        let four = |heads: usize, width: usize| Ix4(b, heads, n, width);
        let seed = self.seed;
        let fill = |values: &Values, tensor: Tensor, dim: Ix4| values.fill(seed, tensor as u64, dim);
        let (indices, mask) = self.slots(&shape)?;
        let optional =
            |values: &Option<Values>, tensor, dim| values.as_ref().map(|values| fill(values, tensor, dim)).transpose();
        let rows = four(shape.q_heads(), shape.value_dim());
        let mut parts = InputParts {
            block_size: shape.block_size(),
            include_block_causal: self.include_block_causal,
            sliding_window: self.sliding_window,
            element,
            q: fill(&self.q, Tensor::Q, four(shape.q_heads(), shape.dim()))?,
            k: fill(&self.k, Tensor::K, four(shape.kv_heads(), shape.dim()))?,
            v: fill(&self.v, Tensor::V, four(shape.kv_heads(), shape.value_dim()))?,
            indices,
            mask,
            sel_scale: optional(&self.sel_scale, Tensor::SelScale, four(shape.sel_heads(), shape.num_sel()))?,
            cotangents: Cotangents {
                d_out: optional(&self.d_out, Tensor::DOut, rows)?,
                d_lse: match &self.d_lse {
                    Some(values) => Some(values.fill(seed, Tensor::DLse as u64, Ix3(b, shape.q_heads(), n))?),
                    None => None,
                },
                d_sliding: optional(&self.d_sliding, Tensor::DSliding, rows)?,
            },
        };
        for change in &self.overrides {
            apply(change, &mut parts)?;
        }
        Inputs::new(parts)
    }

    fn slots(&self, shape: &Shape) -> Result<(Array4<i64>, Array4<bool>), Error> {
        let dim = Ix4(shape.batch(), shape.sel_heads(), shape.seq_len(), shape.num_sel());
        let mut indices = Array4::zeros(dim);
        let mut mask = Array4::from_elem(dim, true);
        if let Selection::Given(given) = &self.selection {
            indices =
                given.cut(dim.slice())?.mapv(|index| index as i64).into_dimensionality().expect("cut to this shape");
        }
        if let Mask::Given(given) = &self.mask {
            mask = given.cut(dim.slice())?.mapv(|live| live != 0.0).into_dimensionality().expect("cut to this shape");
        }
        let same = Stream::new(self.seed, Tensor::Indices as u64, [usize::MAX - 1; 3]);
        for ((b, h, i), _) in Array::<(), Ix3>::default((dim[0], dim[1], dim[2])).indexed_iter() {
            if !matches!(self.selection, Selection::Given(_)) {
                let stream = Stream::new(self.seed, Tensor::Indices as u64, [b, h, i]);
                for (s, block) in self.selection.row(shape, stream, same, i).into_iter().enumerate() {
                    indices[[b, h, i, s]] = block.unwrap_or(0) as i64;
                    mask[[b, h, i, s]] &= block.is_some();
                }
            }
            if !matches!(self.mask, Mask::Given(_)) {
                let stream = Stream::new(self.seed, Tensor::Mask as u64, [b, h, i]);
                (0..dim[3]).for_each(|s| mask[[b, h, i, s]] &= self.mask.live(stream, s));
            }
        }
        Ok((indices, mask))
    }

    /// The distributions that are present.
    pub fn values(&self) -> impl Iterator<Item = (Tensor, &Values)> {
        let always = [(Tensor::Q, &self.q), (Tensor::K, &self.k), (Tensor::V, &self.v)];
        let optional = [
            (Tensor::SelScale, &self.sel_scale),
            (Tensor::DOut, &self.d_out),
            (Tensor::DLse, &self.d_lse),
            (Tensor::DSliding, &self.d_sliding),
        ];
        always.into_iter().chain(optional.into_iter().filter_map(|(tensor, values)| Some((tensor, values.as_ref()?))))
    }

    /// The distribution of `tensor`, to change; `None` for an absent one, and for indices and mask.
    pub fn values_mut(&mut self, tensor: Tensor) -> Option<&mut Values> {
        match tensor {
            Tensor::Q => Some(&mut self.q),
            Tensor::K => Some(&mut self.k),
            Tensor::V => Some(&mut self.v),
            Tensor::SelScale => self.sel_scale.as_mut(),
            Tensor::DOut => self.d_out.as_mut(),
            Tensor::DLse => self.d_lse.as_mut(),
            Tensor::DSliding => self.d_sliding.as_mut(),
            Tensor::Indices | Tensor::Mask => None,
        }
    }

    fn given_mut(&mut self) -> Vec<&mut Given> {
        let mut given: Vec<&mut Given> = Vec::new();
        let values =
            [Some(&mut self.q), Some(&mut self.k), Some(&mut self.v), self.sel_scale.as_mut(), self.d_out.as_mut()];
        let more = [self.d_lse.as_mut(), self.d_sliding.as_mut()];
        for values in values.into_iter().chain(more).flatten() {
            if let Values::Given(tensor) = values {
                given.push(tensor);
            }
        }
        if let Selection::Given(tensor) = &mut self.selection {
            given.push(tensor);
        }
        if let Mask::Given(tensor) = &mut self.mask {
            given.push(tensor);
        }
        given
    }

    /// Reads every given tensor that is not at hand, by `read(file, tensor)`.
    pub(crate) fn resolve(&mut self, read: &mut Reader<'_>) -> Result<(), Error> {
        self.given_mut().into_iter().try_for_each(|given| given.resolve(read))
    }

    /// The case whose every tensor is given: the values of `inputs` themselves, in the file `self`.
    pub fn from_inputs(inputs: &Inputs) -> Self {
        let given = |tensor: Tensor, data: ArrayD<f64>| Given::new("self", tensor.name(), data);
        let values = |tensor, data: ArrayD<f64>| Values::Given(given(tensor, data));
        let cotangents = inputs.cotangents();
        let mask = inputs.mask().mapv(|live| if live { 1.0 } else { 0.0 });
        Case {
            sizes: inputs.shape().sizes(),
            include_block_causal: inputs.include_block_causal(),
            sliding_window: inputs.sliding_window(),
            seed: 0,
            q: values(Tensor::Q, inputs.q().clone().into_dyn()),
            k: values(Tensor::K, inputs.k().clone().into_dyn()),
            v: values(Tensor::V, inputs.v().clone().into_dyn()),
            selection: Selection::Given(given(Tensor::Indices, inputs.indices().mapv(f64::from).into_dyn())),
            mask: Mask::Given(given(Tensor::Mask, mask.into_dyn())),
            sel_scale: inputs.sel_scale().map(|data| values(Tensor::SelScale, data.clone().into_dyn())),
            d_out: cotangents.d_out.as_ref().map(|data| values(Tensor::DOut, data.clone().into_dyn())),
            d_lse: cotangents.d_lse.as_ref().map(|data| values(Tensor::DLse, data.clone().into_dyn())),
            d_sliding: cotangents.d_sliding.as_ref().map(|data| values(Tensor::DSliding, data.clone().into_dyn())),
            overrides: Vec::new(),
        }
    }

    /// The case as one TOML table: its canonical form.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a case is plain data")
    }

    /// Twelve hexadecimal digits of the SHA-256 of the canonical form and of every given tensor's bits.
    pub fn id(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(self.to_toml());
        for given in self.clone().given_mut() {
            for value in given.data().into_iter().flatten() {
                digest.update(value.to_bits().to_le_bytes());
            }
        }
        digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}

fn apply(change: &Override, parts: &mut InputParts) -> Result<(), Error> {
    let cotangents = &mut parts.cotangents;
    match change.tensor {
        Tensor::Q => set(change, Some(&mut parts.q), change.value),
        Tensor::K => set(change, Some(&mut parts.k), change.value),
        Tensor::V => set(change, Some(&mut parts.v), change.value),
        Tensor::Indices => set(change, Some(&mut parts.indices), change.value as i64),
        Tensor::Mask => set(change, Some(&mut parts.mask), change.value != 0.0),
        Tensor::SelScale => set(change, parts.sel_scale.as_mut(), change.value),
        Tensor::DOut => set(change, cotangents.d_out.as_mut(), change.value),
        Tensor::DLse => set(change, cotangents.d_lse.as_mut(), change.value),
        Tensor::DSliding => set(change, cotangents.d_sliding.as_mut(), change.value),
    }
}

fn set<A: Clone, D: Dimension>(change: &Override, tensor: Option<&mut Array<A, D>>, value: A) -> Result<(), Error> {
    let name = change.tensor.name();
    let tensor =
        tensor.ok_or_else(|| Error::invalid(format!("an override sets {name}, which the case does not have")))?;
    let shape = tensor.shape().to_vec();
    let inside = shape.len() == change.index.len() && shape.iter().zip(&change.index).all(|(size, index)| index < size);
    if !inside {
        let message = format!("an override sets {name}{:?}, beyond its shape {shape:?}", change.index);
        return Err(Error::invalid(message));
    }
    tensor.view_mut().into_dyn()[change.index.as_slice()] = value;
    Ok(())
}

/// A case as it is written: sizes beside everything else, with defaults for what is usual.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseText {
    batch: usize,
    q_heads: usize,
    kv_heads: usize,
    seq_len: usize,
    dim: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_dim: Option<usize>,
    block_size: usize,
    num_sel: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sel_heads: Option<usize>,
    #[serde(default = "yes")]
    include_block_causal: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sliding_window: Option<usize>,
    seed: Seed,
    #[serde(default = "Values::normal")]
    q: Values,
    #[serde(default = "Values::normal")]
    k: Values,
    #[serde(default = "Values::normal")]
    v: Values,
    #[serde(default = "past")]
    selection: Selection,
    #[serde(default = "all")]
    mask: Mask,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sel_scale: Option<Values>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    d_out: Option<Values>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    d_lse: Option<Values>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    d_sliding: Option<Values>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    overrides: Vec<Override>,
}

/// A seed: a number where TOML's signed integers hold it, else hexadecimal text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Seed {
    Small(u32),
    Text(String),
}

fn yes() -> bool {
    true
}

fn past() -> Selection {
    Selection::Past {}
}

fn all() -> Mask {
    Mask::All {}
}

impl TryFrom<CaseText> for Case {
    type Error = Error;

    fn try_from(text: CaseText) -> Result<Self, Error> {
        let seed = match &text.seed {
            Seed::Small(seed) => u64::from(*seed),
            Seed::Text(seed) => u64::from_str_radix(seed.trim_start_matches("0x"), 16)
                .map_err(|_| Error::invalid(format!("seed `{seed}` is not a hexadecimal number of 64 bits")))?,
        };
        let case = Case {
            sizes: Sizes {
                batch: text.batch,
                q_heads: text.q_heads,
                kv_heads: text.kv_heads,
                seq_len: text.seq_len,
                dim: text.dim,
                value_dim: text.value_dim.unwrap_or(text.dim),
                block_size: text.block_size,
                num_sel: text.num_sel,
                sel_heads: text.sel_heads.unwrap_or(text.kv_heads),
            },
            include_block_causal: text.include_block_causal,
            sliding_window: text.sliding_window,
            seed,
            q: text.q,
            k: text.k,
            v: text.v,
            selection: text.selection,
            mask: text.mask,
            sel_scale: text.sel_scale,
            d_out: text.d_out,
            d_lse: text.d_lse,
            d_sliding: text.d_sliding,
            overrides: text.overrides,
        };
        case.shape()?;
        case.values().try_for_each(|(tensor, values)| values.check(tensor.name()))?;
        if case.d_sliding.is_some() && case.sliding_window.is_none() {
            return Err(Error::invalid("d_sliding is given, but there is no sliding_window"));
        }
        Ok(case)
    }
}

impl From<Case> for CaseText {
    fn from(case: Case) -> Self {
        let sizes = case.sizes;
        CaseText {
            batch: sizes.batch,
            q_heads: sizes.q_heads,
            kv_heads: sizes.kv_heads,
            seq_len: sizes.seq_len,
            dim: sizes.dim,
            value_dim: (sizes.value_dim != sizes.dim).then_some(sizes.value_dim),
            block_size: sizes.block_size,
            num_sel: sizes.num_sel,
            sel_heads: (sizes.sel_heads != sizes.kv_heads).then_some(sizes.sel_heads),
            include_block_causal: case.include_block_causal,
            sliding_window: case.sliding_window,
            seed: u32::try_from(case.seed).map_or_else(|_| Seed::Text(format!("{:#x}", case.seed)), Seed::Small),
            q: case.q,
            k: case.k,
            v: case.v,
            selection: case.selection,
            mask: case.mask,
            sel_scale: case.sel_scale,
            d_out: case.d_out,
            d_lse: case.d_lse,
            d_sliding: case.d_sliding,
            overrides: case.overrides,
        }
    }
}
