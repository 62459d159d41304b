//! Reading the functions' flat answers.

use bytes::Bytes;
use redis::Value;

/// The parts of an answer, in order.
pub(super) struct Reply(std::vec::IntoIter<Value>);

impl Reply {
    /// An answer that is a list, or a single value.
    pub(super) fn new(value: Value) -> Option<Self> {
        let parts = match value {
            Value::Array(parts) => parts,
            Value::Int(_) | Value::BulkString(_) => vec![value],
            _ => return None,
        };
        Some(Self(parts.into_iter()))
    }

    /// How many parts are left.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the next part is an empty text.
    pub(super) fn begins_empty(&self) -> bool {
        matches!(self.0.as_slice().first(), Some(Value::BulkString(text)) if text.is_empty())
    }

    /// Whether none is left.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next part, a whole number.
    pub(super) fn int(&mut self) -> Option<i64> {
        match self.0.next()? {
            Value::Int(number) => Some(number),
            _ => None,
        }
    }

    /// The next part.
    pub(super) fn bytes(&mut self) -> Option<Bytes> {
        match self.0.next()? {
            Value::BulkString(bytes) => Some(Bytes::from(bytes)),
            _ => None,
        }
    }

    /// The next part, a text.
    pub(super) fn text(&mut self) -> Option<String> {
        match self.0.next()? {
            Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}
