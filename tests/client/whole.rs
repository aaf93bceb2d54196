//! Whole files, to and from our own server.

use crate::rig::{Scratch, builder, pattern, serve, shelf, start};
use std::io::Cursor;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tftpool::{Client, ClientError, Mode, Refusal, Request, Sink, Source, Store, store_fn};

/// Around every border: nothing, one octet, one block and its neighbours, whole windows.
fn sizes(blksize: usize, windowsize: usize) -> Vec<usize> {
    let window = blksize * windowsize;
    let around = |size: usize| [size - 1, size, size + 1];
    let mut sizes = vec![0, 1];
    sizes.extend(around(blksize));
    sizes.extend(around(2 * blksize));
    sizes.extend(around(window.max(2)));
    sizes.push(5 * window + 7);
    sizes
}

const SETTINGS: [(u16, u16); 6] = [
    (512, 1),
    (512, 16),
    (1428, 16),
    (1428, 64),
    (8, 3),
    (65464, 2),
];

/// A store that keeps what it gets, and gives it back.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Vec<u8>>>);

struct Upload(Arc<Mutex<Vec<u8>>>, Vec<u8>);

impl Store for Shelf {
    fn read(&self, _: &Request<'_>) -> Result<Source, Refusal> {
        Ok(Source::bytes(self.0.lock().expect("sound").clone()))
    }

    fn write(&self, _: &Request<'_>) -> Result<Box<dyn Sink>, Refusal> {
        Ok(Box::new(Upload(Arc::clone(&self.0), Vec::new())))
    }
}

impl Sink for Upload {
    fn append(&mut self, octets: &[u8]) -> Result<(), Refusal> {
        self.1.extend_from_slice(octets);
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), Refusal> {
        *self.0.lock().expect("sound") = self.1;
        Ok(())
    }
}

#[test]
fn files_of_every_size_come_whole() {
    for (blksize, windowsize) in SETTINGS {
        for size in sizes(blksize.into(), windowsize.into()) {
            let wanted = pattern(size);
            let server = serve(shelf([("file", wanted.clone())]));
            let client = Client::new(server.local_addr());
            let client = client.blksize(blksize).windowsize(windowsize);
            let mut got = Vec::new();
            let summary = client.get_to("file", &mut got).expect("the file");
            assert!(got == wanted, "{blksize} x {windowsize}: {size}");
            assert_eq!(summary.bytes, size as u64);
            let agreed = (summary.blksize, summary.windowsize);
            assert_eq!(agreed, (blksize, windowsize), "{size}");
        }
    }
}

#[test]
fn files_of_every_size_arrive_whole() {
    for (blksize, windowsize) in SETTINGS {
        for size in sizes(blksize.into(), windowsize.into()) {
            let store = Shelf::default();
            let server = serve(store.clone());
            let client = Client::new(server.local_addr());
            let client = client.blksize(blksize).windowsize(windowsize);
            let sent = pattern(size);
            let known = client.put("file", Source::bytes(sent.as_slice()));
            assert_eq!(known.expect("sent").bytes, size as u64);
            assert!(*store.0.lock().expect("sound") == sent, "{blksize}: {size}");
            let stream = Source::reader(Cursor::new(sent.clone()), None);
            store.0.lock().expect("sound").clear();
            client.put("file", stream).expect("sent");
            assert!(*store.0.lock().expect("sound") == sent, "{blksize}: {size}");
        }
    }
}

#[test]
fn netascii_comes_back_as_it_went() {
    let mut text = b"\rlone\r\nboth\nonly\n\r\r\n".repeat(200);
    text.push(b'\r');
    let store = Shelf::default();
    let server = serve(store.clone());
    for blksize in [8, 512, 1428] {
        let client = Client::new(server.local_addr()).mode(Mode::Netascii);
        let client = client.blksize(blksize);
        client
            .put("text", Source::bytes(text.as_slice()))
            .expect("sent");
        assert_eq!(*store.0.lock().expect("sound"), text, "{blksize}");
        let mut got = Vec::new();
        client.get_to("text", &mut got).expect("the text");
        assert_eq!(got, text, "{blksize}");
    }
}

/// Bytes, text and files need no name of a source.
#[test]
fn what_is_like_a_source_is_put_as_it_is() {
    let store = Shelf::default();
    let server = serve(store.clone());
    let client = Client::new(server.local_addr());
    let scratch = Scratch::new();
    scratch.file("file", b"a file");
    let file = std::fs::File::open(scratch.at("file")).expect("a file");
    let sources = [
        (Source::from("text"), "text"),
        (String::from("a string").into(), "a string"),
        (b"an array".into(), "an array"),
        ((&b"a slice"[..]).into(), "a slice"),
        (b"a vector".to_vec().into(), "a vector"),
        (Arc::<[u8]>::from(*b"shared").into(), "shared"),
        (file.into(), "a file"),
    ];
    for (source, content) in sources {
        client.put("x", source).expect("sent");
        assert_eq!(*store.0.lock().expect("sound"), content.as_bytes());
    }
    for content in ["text", "more text"] {
        client.put("x", content).expect("sent");
        assert_eq!(*store.0.lock().expect("sound"), content.as_bytes());
        assert_eq!(client.get("x").expect("the text"), content.as_bytes());
    }
}

#[test]
fn progress_is_told_and_ends_with_the_size() {
    let wanted = pattern(3 << 20);
    let server = serve(shelf([("file", wanted.clone())]));
    let (last, size) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (seen, seen_size) = (Arc::clone(&last), Arc::clone(&size));
    let client = Client::new(server.local_addr()).progress(move |progress| {
        let before = seen.swap(progress.bytes, Ordering::Relaxed);
        assert!(before <= progress.bytes);
        seen_size.store(progress.size.unwrap_or(0), Ordering::Relaxed);
    });
    client.get("file").expect("the file");
    assert_eq!(last.load(Ordering::Relaxed), 3 << 20);
    assert_eq!(size.load(Ordering::Relaxed), 3 << 20);
}

#[test]
fn local_addresses_and_ports_are_as_asked() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let peers = Arc::clone(&asked);
    let server = start(builder(store_fn(move |request| {
        peers.lock().expect("sound").push(request.peer);
        Ok(Source::bytes(&b"here"[..]))
    })));
    let free = std::net::UdpSocket::bind("127.0.0.4:0").expect("a free port");
    let wanted = free.local_addr().expect("bound");
    drop(free);
    let client = Client::new(server.local_addr())
        .bind(wanted.ip())
        .local_ports(wanted.port()..=wanted.port());
    client.get("file").expect("the file");
    client.get("file").expect("the file again");
    assert_eq!(*asked.lock().expect("sound"), [wanted, wanted]);
    // The other family cannot be bound to it.
    let six = Client::new(server.local_addr()).bind(std::net::Ipv6Addr::LOCALHOST.into());
    assert!(six.get("file").is_err());
}

#[test]
#[cfg(target_os = "linux")]
fn an_interface_can_be_chosen() {
    let server = serve(shelf([("file", pattern(10))]));
    let client = Client::new(server.local_addr());
    let lo = client.clone().interface("lo");
    match lo.get("file") {
        Ok(content) => assert_eq!(content.len(), 10),
        // Older kernels ask for CAP_NET_RAW.
        Err(ClientError::Network(cause))
            if cause.to_string().contains("operation not permitted") =>
        {
            assert!(std::env::var_os("CI").is_none(), "{cause}");
            eprintln!("skipped: {cause}");
        }
        Err(failure) => panic!("{failure}"),
    }
    let absent = client.interface("no-such-if");
    assert!(absent.get("file").is_err());
}
