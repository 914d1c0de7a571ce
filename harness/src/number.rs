//! Numbers in JSON, where NaN and infinities have no numeral: they are written as the texts "nan", "inf" and "-inf".

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number as JSON holds it.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Number {
    /// A numeral.
    Finite(f64),
    /// `"nan"`, `"inf"` or `"-inf"`.
    Text(String),
}

pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    let number = match *value {
        value if value.is_nan() => Number::Text("nan".to_owned()),
        f64::INFINITY => Number::Text("inf".to_owned()),
        f64::NEG_INFINITY => Number::Text("-inf".to_owned()),
        value => Number::Finite(value),
    };
    number.serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    match Number::deserialize(deserializer)? {
        Number::Finite(value) => Ok(value),
        Number::Text(text) => text
            .parse()
            .map_err(|_| serde::de::Error::custom(format!("{} is no number", nsa_corpus::foreign::quoted(&text)))),
    }
}

/// The same for a number that may be missing: `null`.
pub(crate) mod optional {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Wrapped(#[serde(with = "super")] f64);

    pub(crate) fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(Wrapped).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|Wrapped(value)| value))
    }
}
