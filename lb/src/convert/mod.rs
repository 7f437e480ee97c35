//! Kubernetes objects to [`crate::model`] types. Pure; everything that is wrong with an object is found here.

/// The result of converting an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted<T> {
    /// The object; none if it deliberately is not ours to serve (headless, `ExternalName`, another proxy's).
    pub object: Option<T>,
    /// What was wrong with parts of it, which are left out of `object`.
    pub defects: Vec<String>,
}
