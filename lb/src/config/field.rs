//! One field: what it may hold, what holds where nothing is said, and what it is good for here.

use serde_json::{Value, json};

use super::kind::Kind;

/// A field of a document.
#[derive(Debug)]
pub(super) struct Field {
    /// Where it is, with dots.
    pub(super) path: &'static str,
    /// The flag for it, without dashes; more than one field may have the same.
    pub(super) flag: Option<&'static str>,
    pub(super) kind: Kind,
    pub(super) default: Preset,
    pub(super) used: Used,
}

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Used {
    /// It is honoured; the help of the flag.
    Honoured(&'static str),
    /// It means nothing here; why.
    Meaningless(&'static str),
}

/// What holds if nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preset {
    /// This, also where the field has Go's zero value: 0, "", 0s, false, nothing.
    Unset(Fixed),
    /// This; Go's zero value is a value like others.
    Absent(Fixed),
    /// Nothing, and nothing is written for it either: kube-proxy does not have this field any more.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fixed {
    Null,
    Bool(bool),
    Int(i64),
    Text(&'static str),
    Texts(&'static [&'static str]),
    Map,
}

impl Fixed {
    pub(super) fn value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => value.into(),
            Self::Int(value) => value.into(),
            Self::Text(value) => value.into(),
            Self::Texts(values) => json!(values),
            Self::Map => json!({}),
        }
    }
}

impl Preset {
    pub(super) fn value(self) -> Option<Value> {
        match self {
            Self::Unset(fixed) | Self::Absent(fixed) => Some(fixed.value()),
            Self::Gone => None,
        }
    }

    /// Whether `value` says no more than the default does.
    pub(super) fn says(self, value: &Value) -> bool {
        match self {
            Self::Unset(fixed) => is_zero(value) || *value == fixed.value(),
            Self::Absent(fixed) => *value == fixed.value(),
            Self::Gone => is_zero(value),
        }
    }
}

/// Go's zero value of whatever type this has.
pub(super) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty() || value == "0s",
        Value::Array(value) => value.is_empty(),
        Value::Object(value) => value.is_empty(),
    }
}
