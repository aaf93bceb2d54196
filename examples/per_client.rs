//! Boot files from templates, filled in for each client:
//! `cargo run --example per_client -- DIR [ADDRESS]`.
//!
//! A name that ends in `.cfg` or `.ipxe` is a template: `{ip}` becomes the client's address,
//! `{server}` the one it asked, `{name}` the name. A file in a folder named like the client's
//! address comes before the one that is for all.

use std::net::IpAddr;
use tftpool::{Dir, ErrorCode, Refusal, Request, Server, Source, Storage, Store};

struct Templates {
    dir: Dir,
    files: Storage,
}

impl Store for Templates {
    fn read(&self, request: &Request<'_>) -> Result<Source, Refusal> {
        let own = [plain(request.peer.ip()).as_bytes(), b"/", request.name].concat();
        for name in [own.as_slice(), request.name] {
            let wanted = request.with_name(name);
            match self.dir.read(&wanted) {
                // What it may not have, it may not have as a template either.
                Ok(source) if !is_template(name) => return Ok(source),
                Ok(_) => return self.fill_in(&wanted),
                Err(refusal) if refusal.code() == ErrorCode::NOT_FOUND => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Err(Refusal::not_found())
    }
}

impl Templates {
    fn fill_in(&self, request: &Request<'_>) -> Result<Source, Refusal> {
        let name = String::from_utf8_lossy(request.name);
        // Some clients write `\` for `/`. A `Dir` looks for the name as it stands, and then so; a
        // `Storage` does not.
        let slashed = name.replace('\\', "/");
        let read = |name: &str| self.files.read(name);
        let failed = |detail: String| {
            Refusal::new(ErrorCode::NOT_DEFINED, "cannot make this file").because(detail)
        };
        let template = read(&name).or_else(|_| read(&slashed));
        let template = template.map_err(|error| failed(error.to_string()))?;
        let template =
            String::from_utf8(template).map_err(|_| failed("the template is no text".into()))?;
        let text = template
            .replace("{ip}", &plain(request.peer.ip()))
            .replace("{server}", &plain(request.local.ip()))
            .replace("{name}", &name);
        Ok(Source::bytes(text.into_bytes()))
    }
}

fn is_template(name: &[u8]) -> bool {
    name.ends_with(b".cfg") || name.ends_with(b".ipxe")
}

fn plain(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: per_client DIR [ADDRESS]")?;
    let address = arguments.next().unwrap_or("127.0.0.1:6969".into());

    let dir = Dir::read_only(directory)?;
    let files = Storage::new(dir.clone());
    let server = Server::builder(Templates { dir, files })
        .bind(address.parse()?)
        .start()?;
    println!("serving on {}", server.local_addr());
    server.join()?;
    Ok(())
}
