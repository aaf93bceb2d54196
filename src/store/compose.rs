//! Stores made of other things: a closure, and the pointers that hold a store.

use super::{Request, Sink, Source, Store};
use crate::error::Refusal;
use std::fmt;
use std::sync::Arc;

/// Makes a store of a closure that answers RRQs. The store takes no uploads.
///
/// ```
/// use tftpool::{Refusal, Source, store_fn};
///
/// let store = store_fn(|request| match request.name {
///     b"whoami" => Ok(Source::bytes(request.peer.to_string().into_bytes())),
///     _ => Err(Refusal::not_found()),
/// });
/// # let _ = tftpool::Server::builder(store);
/// ```
pub fn store_fn<F>(read: F) -> StoreFn<F>
where
    F: Fn(&Request<'_>) -> Result<Source, Refusal> + Send + Sync,
{
    StoreFn(read)
}

/// The store that [`store_fn`] returns.
#[derive(Clone, Copy)]
pub struct StoreFn<F>(F);

impl<F> fmt::Debug for StoreFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreFn")
    }
}

impl<F> Store for StoreFn<F>
where
    F: Fn(&Request<'_>) -> Result<Source, Refusal> + Send + Sync,
{
    fn read(&self, request: &Request<'_>) -> Result<Source, Refusal> {
        (self.0)(request).map(|source| source.with_name(request.name))
    }

    fn takes_uploads(&self) -> bool {
        false
    }
}

/// A pointer to a store passes every call on.
macro_rules! store_behind {
    ($($pointer:ty),*) => {$(
        impl<S: Store + ?Sized> Store for $pointer {
            fn read(&self, request: &Request<'_>) -> Result<Source, Refusal> {
                (**self).read(request)
            }

            fn takes_uploads(&self) -> bool {
                (**self).takes_uploads()
            }

            fn write(&self, request: &Request<'_>) -> Result<Box<dyn Sink>, Refusal> {
                (**self).write(request)
            }

            fn reload(&self) {
                (**self).reload();
            }
        }
    )*};
}

store_behind!(Box<S>, Arc<S>, &S);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Direction;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Answers each call in its own way, and unlike the default methods of `Store`.
    struct Marked {
        takes_uploads: bool,
        reloads: AtomicUsize,
    }

    struct Nothing;

    impl Sink for Nothing {
        fn append(&mut self, _: &[u8]) -> Result<(), Refusal> {
            Ok(())
        }

        fn commit(self: Box<Self>) -> Result<(), Refusal> {
            Ok(())
        }
    }

    impl Store for Marked {
        fn read(&self, request: &Request<'_>) -> Result<Source, Refusal> {
            match request.name {
                b"file" => Ok(Source::bytes(*b"content")),
                _ => Err(Refusal::not_found()),
            }
        }

        fn takes_uploads(&self) -> bool {
            self.takes_uploads
        }

        fn write(&self, _: &Request<'_>) -> Result<Box<dyn Sink>, Refusal> {
            Ok(Box::new(Nothing))
        }

        fn reload(&self) {
            self.reloads.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn passes_on(pointer: &str, store: impl Store, marked: &Marked) {
        let before = marked.reloads.load(Ordering::Relaxed);
        store.reload();
        let after = marked.reloads.load(Ordering::Relaxed);
        assert_eq!(after, before + 1, "{pointer}: reload");
        let request = Request::new(Direction::Read, "file");
        assert!(store.read(&request).is_ok(), "{pointer}: read");
        let other = request.with_name("other");
        assert!(store.read(&other).is_err(), "{pointer}: the name");
        let request = Request::new(Direction::Write, "file");
        assert!(store.write(&request).is_ok(), "{pointer}: write");
        assert_eq!(
            store.takes_uploads(),
            marked.takes_uploads,
            "{pointer}: takes_uploads"
        );
    }

    #[test]
    fn a_pointer_to_a_store_passes_every_call_on() {
        for takes_uploads in [true, false] {
            let marked = Arc::new(Marked {
                takes_uploads,
                reloads: AtomicUsize::new(0),
            });
            passes_on("&S", &*marked, &marked);
            passes_on("Arc<S>", Arc::clone(&marked), &marked);
            passes_on("Box<S>", Box::new(&*marked), &marked);
            let unsized_store: Arc<dyn Store> = marked.clone();
            passes_on("Arc<dyn Store>", unsized_store, &marked);
            let unsized_store: Box<dyn Store> = Box::new(Arc::clone(&marked));
            passes_on("Box<dyn Store>", unsized_store, &marked);
        }
    }

    #[test]
    fn a_closure_answers_reads_and_takes_no_uploads() {
        let store = store_fn(|request| match request.name {
            b"file" => Ok(Source::bytes(*b"content")),
            _ => Err(Refusal::not_found()),
        });
        assert!(!store.takes_uploads());
        let request = Request::new(Direction::Read, "file");
        assert!(store.read(&request).is_ok());
        assert!(store.read(&request.with_name("other")).is_err());
        let upload = Request::new(Direction::Write, "file");
        let refusal = store.write(&upload).err().expect("a refusal");
        assert_eq!(refusal, Refusal::read_only());
    }
}
