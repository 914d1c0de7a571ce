//! A problem as plain data: sizes, options, and what every tensor is drawn from. Cases are stored, printed, generated and
//! shrunk; [`Case::materialize`] turns one into tensors.

use ndarray::{Array, Array4, ArrayD, Dimension, IxDyn};

use crate::{
    Cotangents, Dtype, Error, Given, InputParts, Inputs, Limit, Mask, Override, Selection, Shape, Sizes, Tensor,
    Values, selection,
};

/// One problem. Its tensors are a pure function of it ([`Case::materialize`]), the same bits on every machine.
///
/// In TOML it is one table; [docs of the corpus format](Case::to_toml) say what may be left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The sizes, not yet checked.
    pub sizes: Sizes,
    /// Whether a query attends to its own block up to itself.
    pub include_block_causal: bool,
    /// The sliding output's window; `None`: no sliding output.
    pub sliding_window: Option<usize>,
    /// What every random value is a function of, beside its tensor and coordinates.
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
    /// Factors of the slots' scores; `None`: 1, without a gradient.
    pub sel_scale: Option<Values>,
    /// Cotangent of `out`; with all three `None`, forward only.
    pub d_out: Option<Values>,
    /// Cotangent of `lse`.
    pub d_lse: Option<Values>,
    /// Cotangent of `sliding_out`; only beside a sliding window.
    pub d_sliding: Option<Values>,
    /// Elements replaced after everything is drawn, in order.
    pub overrides: Vec<Override>,
}

impl Case {
    /// Bell-shaped values of `sizes`, distinct past blocks, all slots live, no sel_scale, a bell-shaped `d_out`.
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
    /// Sizes that [`Shape::new`] refuses.
    pub fn shape(&self) -> Result<Shape, Error> {
        Shape::new(self.sizes)
    }

    /// Checks everything that can be checked without drawing a tensor or reading a file.
    ///
    /// # Errors
    /// Sizes that [`Shape::new`] refuses or that take more than [`Limit::FILE`]; parameters of a distribution; a
    /// `d_sliding` without a window; an override of an absent tensor, out of range or of the wrong type.
    pub fn check(&self) -> Result<Shape, Error> {
        self.check_up_to(Limit::FILE)
    }

    fn check_up_to(&self, limit: Limit) -> Result<Shape, Error> {
        limit.check(&self.sizes)?;
        let shape = self.shape()?;
        self.values().try_for_each(|(tensor, values)| values.check(tensor.name()))?;
        if self.d_sliding.is_some() && self.sliding_window.is_none() {
            return Err(Error::invalid("d_sliding is given, but there is no sliding window"));
        }
        self.overrides.iter().try_for_each(|change| change.check(self.has(change.tensor), &shape))?;
        Ok(shape)
    }

    /// The floating-point tensors that the case has, each with what it is drawn from.
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

    /// What `tensor` is drawn from, to change; `None` for an absent one, and for indices and mask.
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

    /// Whether the case has this tensor.
    pub fn has(&self, tensor: Tensor) -> bool {
        matches!(tensor, Tensor::Indices | Tensor::Mask) || self.values().any(|(present, _)| present == tensor)
    }

    /// Draws every tensor, applies the overrides and rounds to `dtype`.
    ///
    /// # Errors
    /// What [`Case::check`] refuses; a file that cannot be read, or whose tensor does not fit; a given index of a live slot
    /// out of range.
    ///
    /// # Examples
    /// ```
    /// use nsa_corpus::{Case, Dtype, Sizes};
    /// let sizes = Sizes { q_heads: 2, seq_len: 9, dim: 4, block_size: 4, ..Sizes::default() };
    /// let inputs = Case::ordinary(sizes, 1).materialize(Dtype::F32).unwrap();
    /// assert_eq!(inputs.q().dim(), (1, 2, 9, 4));
    /// assert!(!inputs.mask()[[0, 0, 0, 0]]); // token 0 has no past block to select
    /// ```
    pub fn materialize(&self, dtype: Dtype) -> Result<Inputs, Error> {
        self.materialize_up_to(dtype, Limit::FILE)
    }

    /// As [`Case::materialize`], with another limit: for cases that come from no file.
    ///
    /// # Errors
    /// As [`Case::materialize`].
    pub fn materialize_up_to(&self, dtype: Dtype, limit: Limit) -> Result<Inputs, Error> {
        let shape = self.check_up_to(limit)?;
        // A given tensor may be larger than the case, and is read whole.
        let given = self.given().try_fold(0, |sum: u128, given| Ok(sum + given.count()?))?;
        limit.check_count("the given tensors", given)?;
        let (indices, mask) = self.slots(&shape)?;
        let cotangents = Cotangents {
            d_out: self.fill(Tensor::DOut, &shape)?,
            d_lse: self.fill(Tensor::DLse, &shape)?,
            d_sliding: self.fill(Tensor::DSliding, &shape)?,
        };
        let present = "q, k and v are always present";
        Inputs::new(InputParts {
            block_size: shape.block_size(),
            include_block_causal: self.include_block_causal,
            sliding_window: self.sliding_window,
            dtype,
            q: self.fill(Tensor::Q, &shape)?.expect(present),
            k: self.fill(Tensor::K, &shape)?.expect(present),
            v: self.fill(Tensor::V, &shape)?.expect(present),
            indices,
            mask,
            sel_scale: self.fill(Tensor::SelScale, &shape)?,
            cotangents,
        })
    }

    /// The indices and the mask alone: enough to say what a selection covers. `shape` is this case's own.
    pub(crate) fn slots(&self, shape: &Shape) -> Result<(Array4<i64>, Array4<bool>), Error> {
        let tags = [Tensor::Indices.tag(), Tensor::Mask.tag()];
        let (mut indices, mut mask) = selection::draw(&self.selection, &self.mask, shape, self.seed, tags)?;
        for change in &self.overrides {
            let Ok(position) = <[usize; 4]>::try_from(change.index.as_slice()) else { continue };
            match change.tensor {
                Tensor::Indices => indices[position] = change.value as i64,
                Tensor::Mask => mask[position] = change.value != 0.0,
                _ => {}
            }
        }
        selection::settle_masked(&mut indices, &mask, shape.blocks());
        Ok((indices, mask))
    }

    /// The floating-point tensor, where the case has it, with its overrides.
    pub(crate) fn fill<D: Dimension>(&self, tensor: Tensor, shape: &Shape) -> Result<Option<Array<f64, D>>, Error> {
        let Some((_, values)) = self.values().find(|(present, _)| *present == tensor) else { return Ok(None) };
        let dim = IxDyn(&tensor.shape(shape));
        let mut filled: ArrayD<f64> = values.fill(self.seed, tensor.tag(), dim)?;
        for change in self.overrides.iter().filter(|change| change.tensor == tensor) {
            filled[change.index.as_slice()] = change.value;
        }
        Ok(Some(filled.into_dimensionality().expect("the tensor's own number of axes")))
    }

    /// A case that holds the tensors of `inputs` themselves instead of what they were drawn from. It is stored together
    /// with them, as a [`Bundle`](crate::Bundle).
    pub fn from_inputs(inputs: &Inputs) -> Case {
        let given = |tensor: Tensor, data: ArrayD<f64>| Given::in_memory(tensor.name(), data);
        let values = |tensor, data| Values::Given(given(tensor, data));
        let cotangents = inputs.cotangents();
        Case {
            include_block_causal: inputs.include_block_causal(),
            sliding_window: inputs.sliding_window(),
            q: values(Tensor::Q, inputs.q().clone().into_dyn()),
            k: values(Tensor::K, inputs.k().clone().into_dyn()),
            v: values(Tensor::V, inputs.v().clone().into_dyn()),
            selection: Selection::Given(given(Tensor::Indices, inputs.indices().mapv(f64::from).into_dyn())),
            mask: Mask::Given(given(Tensor::Mask, inputs.mask().mapv(|live| f64::from(u8::from(live))).into_dyn())),
            sel_scale: inputs.sel_scale().map(|tensor| values(Tensor::SelScale, tensor.clone().into_dyn())),
            d_out: cotangents.d_out.as_ref().map(|tensor| values(Tensor::DOut, tensor.clone().into_dyn())),
            d_lse: cotangents.d_lse.as_ref().map(|tensor| values(Tensor::DLse, tensor.clone().into_dyn())),
            d_sliding: cotangents.d_sliding.as_ref().map(|tensor| values(Tensor::DSliding, tensor.clone().into_dyn())),
            ..Case::ordinary(inputs.shape().sizes(), 0)
        }
    }

    /// Every tensor reference of the case.
    fn given(&self) -> impl Iterator<Item = &Given> {
        let values = self.values().filter_map(|(_, values)| match values {
            Values::Given(given) => Some(given),
            _ => None,
        });
        let selection = if let Selection::Given(given) = &self.selection { Some(given) } else { None };
        let mask = if let Mask::Given(given) = &self.mask { Some(given) } else { None };
        values.chain(selection).chain(mask)
    }

    /// The first tensor that is drawn, or taken from another file than the one in which the case is stored.
    pub(crate) fn drawn(&self) -> Option<Tensor> {
        let own = |given: &Given| given.is_own();
        let selection = (Tensor::Indices, matches!(&self.selection, Selection::Given(given) if own(given)));
        let mask = (Tensor::Mask, matches!(&self.mask, Mask::Given(given) if own(given)));
        let values =
            self.values().map(|(tensor, values)| (tensor, matches!(values, Values::Given(given) if own(given))));
        values.chain([selection, mask]).find(|(_, own)| !own).map(|(tensor, _)| tensor)
    }

    /// Every tensor reference of the case, to bind to a place.
    pub(crate) fn given_mut(&mut self) -> impl Iterator<Item = &mut Given> {
        let values = [Some(&mut self.q), Some(&mut self.k), Some(&mut self.v), self.sel_scale.as_mut()];
        let cotangents = [self.d_out.as_mut(), self.d_lse.as_mut(), self.d_sliding.as_mut()];
        let values = values.into_iter().chain(cotangents).flatten().filter_map(|values| match values {
            Values::Given(given) => Some(given),
            _ => None,
        });
        let selection = if let Selection::Given(given) = &mut self.selection { Some(given) } else { None };
        let mask = if let Mask::Given(given) = &mut self.mask { Some(given) } else { None };
        values.chain(selection).chain(mask)
    }
}
