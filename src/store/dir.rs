//! A rooted directory.
/// placeholder
pub struct Dir;
/// placeholder
pub struct DirBuilder;
