//! What a guest declares when it starts: its arithmetic, what reruns give, what it computes. See docs/guest-protocol.md.

use std::collections::BTreeMap;

use nsa_corpus::{Arithmetic, Dot, Dtype, Field, Inputs, foreign};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::candidate::{self, Determinism};

/// The version of the protocol that this is.
pub(super) const PROTOCOL: u64 = 1;

/// The reply to `hello`, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hello {
    #[serde(rename = "type")]
    kind: String,
    protocol: u64,
    name: String,
    arithmetic: Value,
    #[serde(default)]
    determinism: Option<DeterminismOf>,
    #[serde(default)]
    fields: Option<Vec<Field>>,
    #[serde(default)]
    reads_only_what_it_attends_to: bool,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    supports: Supports,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum DeterminismOf {
    All(Determinism),
    Each(BTreeMap<Field, Determinism>),
}

/// A checked declaration.
#[derive(Debug)]
pub(super) struct Declaration {
    pub(super) name: String,
    arithmetic: BTreeMap<Dtype, Arithmetic>,
    determinism: BTreeMap<Field, Determinism>,
    fields: Vec<Field>,
    reads_only_what_it_attends_to: bool,
    environment: Value,
    supports: Supports,
}

/// What of the contract a guest computes; what it leaves unsaid it does.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Supports {
    batch: Option<Limit>,
    q_heads: Option<Limit>,
    kv_heads: Option<Limit>,
    groups: Option<Limit>,
    seq_len: Option<Limit>,
    dim: Option<Limit>,
    value_dim: Option<Limit>,
    block_size: Option<Limit>,
    num_sel: Option<Limit>,
    /// `false`: values have as many features as keys.
    value_dim_differs: Option<bool>,
    sel_heads: Option<Vec<SelHeads>>,
    sel_scale: Option<SelScale>,
    /// `false`: every slot is live.
    mask: Option<bool>,
    /// `false`: the diagonal is always there.
    no_block_causal: Option<bool>,
    sliding: Option<Sliding>,
    gradients: Option<bool>,
    d_out: Option<bool>,
    d_lse: Option<bool>,
    d_sliding: Option<bool>,
}

/// The values that a size may have.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Limit {
    OneOf(Vec<usize>),
    Range(Range),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Range {
    min: usize,
    max: usize,
    multiple_of: usize,
    power_of_two: bool,
}

impl Default for Range {
    fn default() -> Self {
        Range { min: 0, max: usize::MAX, multiple_of: 1, power_of_two: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SelHeads {
    Kv,
    Q,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SelScale {
    Any,
    Ones,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Sliding {
    Any,
    BlockSize,
    None,
}

impl Declaration {
    /// Reads the reply to `hello`.
    ///
    /// # Errors
    /// What of it cannot be read, in a line.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let hello: Hello = serde_json::from_str(line).map_err(|error| format!("its declaration: {}", brief(error)))?;
        if hello.kind != "hello" {
            return Err(format!("it answered `hello` with {}", foreign::quoted(&hello.kind)));
        }
        if hello.protocol != PROTOCOL {
            return Err(format!("it speaks protocol {}, this is {PROTOCOL}", hello.protocol));
        }
        let arithmetic = arithmetic_of_each(&hello.arithmetic)?;
        let determinism = match hello.determinism {
            None => BTreeMap::new(),
            Some(DeterminismOf::All(all)) => Field::ALL.into_iter().map(|field| (field, all)).collect(),
            Some(DeterminismOf::Each(each)) => each,
        };
        let name = hello.name.chars().filter(|c| !c.is_control()).take(80).collect();
        let fields = hello.fields.unwrap_or_else(|| Field::ALL.to_vec());
        let reads_only_what_it_attends_to = hello.reads_only_what_it_attends_to;
        Ok(Declaration {
            name,
            arithmetic,
            determinism,
            fields,
            reads_only_what_it_attends_to,
            environment: described(&hello.environment),
            supports: hello.supports,
        })
    }

    /// What it declares of problems with inputs of `dtype`; of a format that it does not take, the arithmetic of a plain f32
    /// program.
    pub(super) fn of(&self, dtype: Dtype) -> candidate::Declaration {
        let bounded =
            |(field, determinism): (&Field, &Determinism)| (*determinism == Determinism::Bounded).then_some(*field);
        candidate::Declaration {
            arithmetic: self.arithmetic.get(&dtype).cloned().unwrap_or_else(Arithmetic::f32),
            fields: self.fields.iter().copied().collect(),
            bounded: self.determinism.iter().filter_map(bounded).collect(),
            reads_only_what_it_attends_to: self.reads_only_what_it_attends_to,
            environment: self.environment.clone(),
        }
    }

    pub(super) fn computes(&self, field: Field) -> bool {
        self.fields.contains(&field)
    }

    /// Why it does not compute `inputs`, if it does not.
    pub(super) fn refuses(&self, inputs: &Inputs) -> Option<String> {
        if !self.arithmetic.contains_key(&inputs.dtype()) {
            return Some(format!("it does not take {} inputs", inputs.dtype()));
        }
        if !self.fields.iter().any(|field| field.asked_by(inputs)) {
            return Some("it computes no field that this case asks for".to_owned());
        }
        self.supports.size_refused(inputs).or_else(|| self.supports.option_refused(inputs))
    }
}

impl Supports {
    fn size_refused(&self, inputs: &Inputs) -> Option<String> {
        let shape = inputs.shape();
        let sizes = [
            ("batch", shape.batch(), &self.batch),
            ("q_heads", shape.q_heads(), &self.q_heads),
            ("kv_heads", shape.kv_heads(), &self.kv_heads),
            ("groups", shape.groups(), &self.groups),
            ("seq_len", shape.seq_len(), &self.seq_len),
            ("dim", shape.dim(), &self.dim),
            ("value_dim", shape.value_dim(), &self.value_dim),
            ("block_size", shape.block_size(), &self.block_size),
            ("num_sel", shape.num_sel(), &self.num_sel),
        ];
        let refused =
            sizes.into_iter().find(|(_, size, limit)| limit.as_ref().is_some_and(|limit| !limit.allows(*size)));
        refused.map(|(name, size, _)| format!("it does not take {name} {size}"))
    }

    fn option_refused(&self, inputs: &Inputs) -> Option<String> {
        let (shape, cotangents) = (inputs.shape(), inputs.cotangents());
        let denied = |support: Option<bool>| support == Some(false);
        let heads = if shape.sel_heads() == shape.kv_heads() { SelHeads::Kv } else { SelHeads::Q };
        let ones = || inputs.sel_scale().is_none_or(|scale| scale.iter().all(|value| *value == 1.0));
        let refused = [
            (denied(self.value_dim_differs) && shape.dim() != shape.value_dim(), "a value_dim other than dim"),
            (self.sel_heads.as_ref().is_some_and(|known| !known.contains(&heads)), "this many sel_heads"),
            (self.sel_scale == Some(SelScale::None) && inputs.sel_scale().is_some(), "sel_scale"),
            (self.sel_scale == Some(SelScale::Ones) && !ones(), "a sel_scale other than 1"),
            (denied(self.mask) && inputs.mask().iter().any(|live| !live), "masked slots"),
            (denied(self.no_block_causal) && !inputs.include_block_causal(), "include_block_causal = false"),
            (self.sliding == Some(Sliding::None) && inputs.sliding_window().is_some(), "a sliding window"),
            (
                self.sliding == Some(Sliding::BlockSize)
                    && inputs.sliding_window().is_some_and(|window| window != shape.block_size()),
                "a sliding window other than block_size",
            ),
            (denied(self.gradients) && cotangents.any(), "gradients"),
            (denied(self.d_out) && cotangents.d_out.is_some(), "d_out"),
            (denied(self.d_lse) && cotangents.d_lse.is_some(), "d_lse"),
            (denied(self.d_sliding) && cotangents.d_sliding.is_some(), "d_sliding"),
        ];
        let what = refused.into_iter().find(|(refused, _)| *refused)?.1;
        Some(format!("it does not take {what}"))
    }
}

impl Limit {
    fn allows(&self, size: usize) -> bool {
        match self {
            Limit::OneOf(sizes) => sizes.contains(&size),
            Limit::Range(range) => {
                (range.min..=range.max).contains(&size)
                    && size.is_multiple_of(range.multiple_of.max(1))
                    && (!range.power_of_two || size.is_power_of_two())
            }
        }
    }
}

/// What a guest says of where it runs, fit for a report: so many short texts.
fn described(environment: &BTreeMap<String, String>) -> Value {
    let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
    let pairs = environment.iter().take(32).map(|(key, value)| (short(key), Value::String(short(value))));
    if environment.is_empty() { Value::Null } else { Value::Object(pairs.collect()) }
}

/// Why a text cannot be read, however long a name in it is.
fn brief(error: serde_json::Error) -> String {
    foreign::short(&error.to_string(), 300)
}

/// Either one arithmetic for every format, or an object from formats to theirs.
fn arithmetic_of_each(declared: &Value) -> Result<BTreeMap<Dtype, Arithmetic>, String> {
    let by_dtype = |object: &Map<String, Value>| {
        let elements: Option<Vec<Dtype>> = object.keys().map(|key| key.parse().ok()).collect();
        elements.filter(|elements| !elements.is_empty())
    };
    if let Some(object) = declared.as_object()
        && let Some(elements) = by_dtype(object)
    {
        let each = elements.into_iter().map(|dtype| Ok((dtype, arithmetic(&object[dtype.name()], dtype)?)));
        return each.collect();
    }
    Dtype::ALL.into_iter().map(|dtype| Ok((dtype, arithmetic(declared, dtype)?))).collect()
}

/// A preset's name; an object with a preset and what differs from it; or an object with every part.
fn arithmetic(declared: &Value, dtype: Dtype) -> Result<Arithmetic, String> {
    let mut parts = match declared {
        Value::String(name) => return preset(name, dtype),
        Value::Object(parts) => parts.clone(),
        other => {
            return Err(format!(
                "its arithmetic is {}, neither a name nor an object",
                foreign::quoted(&other.to_string())
            ));
        }
    };
    let mut whole = match parts.remove("preset") {
        None => Map::new(),
        Some(Value::String(name)) => match serde_json::to_value(preset(&name, dtype)?) {
            Ok(Value::Object(whole)) => whole,
            _ => unreachable!("an Arithmetic is an object"),
        },
        Some(other) => {
            return Err(format!("its arithmetic's preset is {}, not a name", foreign::quoted(&other.to_string())));
        }
    };
    whole.extend(parts);
    let checked: Arithmetic = serde_json::from_value(Value::Object(whole))
        .map_err(|error| format!("its arithmetic for {dtype}: {}", brief(error)))?;
    checked.check(dtype).map_err(|error| format!("its {error}"))?;
    Ok(checked)
}

fn preset(name: &str, dtype: Dtype) -> Result<Arithmetic, String> {
    match name {
        "f64" => Ok(Arithmetic::f64()),
        "f32" => Ok(Arithmetic::f32()),
        "tf32" => {
            let dot = Dot::Tf32 { extra_bits: 0 };
            Ok(Arithmetic { scores: dot, products: dot, ..Arithmetic::f32() })
        }
        "tensor_core" => Ok(Arithmetic::tensor_core(dtype)),
        other => Err(format!("its arithmetic {} is none of f64, f32, tf32, tensor_core", foreign::quoted(other))),
    }
}

#[cfg(test)]
mod tests {
    use nsa_corpus::BackwardReads;

    use super::*;

    fn parse(rest: &str) -> Result<Declaration, String> {
        Declaration::parse(&format!(r#"{{"type": "hello", "protocol": 1, "name": "a guest", {rest}}}"#))
    }

    #[test]
    fn a_preset_takes_parts_that_differ() {
        let declared = parse(r#""arithmetic": {"f16": {"preset": "tensor_core", "delta": "probabilities"}}"#).unwrap();
        let found = declared.of(Dtype::F16).arithmetic;
        assert_eq!(
            found,
            Arithmetic { delta: nsa_corpus::Delta::Probabilities, ..Arithmetic::tensor_core(Dtype::F16) }
        );
        assert!(!declared.arithmetic.contains_key(&Dtype::F32));
    }

    #[test]
    fn an_arithmetic_written_out_is_the_one_that_was_meant() {
        let written = serde_json::to_string(&Arithmetic::f32()).unwrap();
        let declared = parse(&format!(r#""arithmetic": {written}"#)).unwrap();
        assert_eq!(declared.of(Dtype::Bf16).arithmetic, Arithmetic::f32());
    }

    #[test]
    fn a_backward_reads_what_was_stored_unless_it_says_otherwise() {
        let reads = |rest: &str| parse(rest).unwrap().of(Dtype::F32).arithmetic.backward_reads;
        assert_eq!(reads(r#""arithmetic": "f64""#), BackwardReads::Stored);
        assert_eq!(
            reads(r#""arithmetic": {"preset": "f64", "lse": "f32", "backward_reads": "own"}"#),
            BackwardReads::Own
        );
        // What was written before this part existed.
        let mut old = serde_json::to_value(Arithmetic::f32()).unwrap();
        assert!(old.as_object_mut().unwrap().remove("backward_reads").is_some());
        assert_eq!(serde_json::from_value::<Arithmetic>(old).unwrap(), Arithmetic::f32());
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let refused = |rest| parse(rest).unwrap_err();
        assert!(refused(r#""arithmetic": "fp8""#).contains("`fp8` is none of"));
        assert!(
            refused(r#""arithmetic": {"preset": "f32", "unit": 2.0}"#).contains("unit 2 is outside 2^-113 to 2^-22")
        );
        assert!(
            refused(r#""arithmetic": {"bf16": {"preset": "f32", "unit": 0.5}}"#)
                .contains("2^-6, what a program with bf16")
        );
        let loose = r#""arithmetic": {"f16": {"preset": "tensor_core", "scores": {"blocks": {"block": 16, "extra_bits": -64}}}}"#;
        assert!(refused(loose).contains("scores: extra_bits -64 is outside -1 to 40"));
        assert!(refused(r#""arithmetic": {"preset": "f32", "speed": 1}"#).contains("unknown field `speed`"));
        assert!(refused(r#""arithmetic": "f32", "supports": {"dimm": [64]}"#).contains("unknown field `dimm`"));
        let old = Declaration::parse(r#"{"type": "hello", "protocol": 2, "name": "", "arithmetic": "f32"}"#);
        assert_eq!(old.unwrap_err(), "it speaks protocol 2, this is 1");
    }

    #[test]
    fn sizes_are_allowed_by_list_or_range() {
        let range: Limit = serde_json::from_str(r#"{"min": 16, "multiple_of": 16, "power_of_two": true}"#).unwrap();
        assert!(range.allows(64) && !range.allows(48) && !range.allows(8));
        let list: Limit = serde_json::from_str("[1, 4]").unwrap();
        assert!(list.allows(4) && !list.allows(2));
    }
}
