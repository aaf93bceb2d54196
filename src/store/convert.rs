//! What a [`Source`] is made of without being asked: bytes, text and files.

use super::Source;
use std::fs::File;
use std::sync::Arc;

impl From<Vec<u8>> for Source {
    fn from(bytes: Vec<u8>) -> Self {
        Self::bytes(bytes)
    }
}

impl From<Arc<[u8]>> for Source {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self::bytes(bytes)
    }
}

impl From<&[u8]> for Source {
    fn from(bytes: &[u8]) -> Self {
        Self::bytes(bytes)
    }
}

impl<const N: usize> From<&[u8; N]> for Source {
    fn from(bytes: &[u8; N]) -> Self {
        Self::bytes(&bytes[..])
    }
}

impl From<String> for Source {
    fn from(text: String) -> Self {
        Self::bytes(text.into_bytes())
    }
}

impl From<&str> for Source {
    fn from(text: &str) -> Self {
        Self::bytes(text.as_bytes())
    }
}

impl From<File> for Source {
    fn from(file: File) -> Self {
        Self::file(file)
    }
}
