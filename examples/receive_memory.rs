//! Takes uploads into memory, and serves what it has:
//! `cargo run --example receive_memory -- [ADDRESS]`.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use tftpool::{ErrorCode, OptionName, Refusal, Request, Server, Sink, Source, Store};

/// Most bytes of one file. A client may announce a size; only what it sends can be believed.
const MOST: usize = 1 << 20;

/// Contents by name. A file is here when it is whole.
type Contents = HashMap<Vec<u8>, Arc<[u8]>>;

#[derive(Clone, Default)]
struct Files(Arc<Mutex<Contents>>);

/// One file on its way. Dropped without `commit`, it leaves nothing behind.
struct Upload {
    files: Files,
    name: Vec<u8>,
    content: Vec<u8>,
}

impl Store for Files {
    fn read(&self, request: &Request<'_>) -> Result<Source, Refusal> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let content = files.get(request.name).ok_or_else(Refusal::not_found)?;
        Ok(Source::bytes(Arc::clone(content)))
    }

    /// A store that implements this method takes uploads; nothing else has to be switched on.
    fn write(&self, request: &Request<'_>) -> Result<Box<dyn Sink>, Refusal> {
        let announced = request.options.get(OptionName::Tsize);
        if announced.is_some_and(|size| size > MOST as u64) {
            return Err(too_large());
        }
        Ok(Box::new(Upload {
            files: self.clone(),
            name: request.name.to_vec(),
            content: Vec::new(),
        }))
    }
}

impl Sink for Upload {
    fn append(&mut self, octets: &[u8]) -> Result<(), Refusal> {
        if self.content.len() + octets.len() > MOST {
            return Err(too_large());
        }
        self.content.extend_from_slice(octets);
        Ok(())
    }

    /// The client has its last ACK when this returns.
    fn commit(self: Box<Self>) -> Result<(), Refusal> {
        println!("{}: {} bytes", self.name.escape_ascii(), self.content.len());
        let mut files = self.files.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(self.name, self.content.into());
        Ok(())
    }
}

fn too_large() -> Refusal {
    Refusal::new(ErrorCode::DISK_FULL, "file is too large")
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:6969".into());
    let server = Server::builder(Files::default())
        .bind(address.parse()?)
        .start()?;
    println!("serving on {}", server.local_addr());
    server.join()?;
    Ok(())
}
