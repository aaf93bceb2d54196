//! Transfers that another thread cancels, and settings that are wrong.

use crate::script::{hasty, play};
use std::net::UdpSocket;
use tftpool::{CancelHandle, Client, ClientError};

#[test]
fn a_running_transfer_is_cancelled_from_another_thread_and_the_server_is_told() {
    let cancel = CancelHandle::new();
    let other = cancel.clone();
    let result = play(
        |port| {
            let call = port.call_without_options();
            call.data(1, &[7; 512]);
            call.acked(1);
            other.cancel();
            assert_eq!(call.refused().0, 0);
        },
        |at| {
            Client::new(at)
                .options(false)
                .cancelled_by(&cancel)
                .get("file")
        },
    );
    assert_eq!(result, Err(ClientError::Cancelled));
    assert!(cancel.is_cancelled());
}

#[test]
fn a_request_that_is_never_answered_is_cancelled_and_the_server_is_told() {
    let cancel = CancelHandle::new();
    let other = cancel.clone();
    let result = play(
        |port| {
            port.call();
            other.cancel();
            assert_eq!(port.given_up(), "transfer given up");
        },
        |at| Client::new(at).cancelled_by(&cancel).put("file", "content"),
    );
    assert_eq!(result.map(|_| ()), Err(ClientError::Cancelled));
}

#[test]
fn after_a_cancel_nothing_is_sent_any_more() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let cancel = CancelHandle::new();
    cancel.cancel();
    let client = hasty(server.local_addr().expect("bound")).cancelled_by(&cancel);
    assert_eq!(client.get("file"), Err(ClientError::Cancelled));
    server.set_nonblocking(true).expect("a socket");
    assert!(server.recv(&mut [0; 600]).is_err(), "something was sent");
}

#[test]
fn a_wrong_setting_is_an_error_and_nothing_is_sent() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let client = hasty(server.local_addr().expect("bound")).blksize(7);
    let error = client.get("file").expect_err("a wrong block size");
    assert!(matches!(error, ClientError::Setting(_)), "{error}");
    assert_eq!(error.to_string(), "blksize must be 8 to 65464");
    server.set_nonblocking(true).expect("a socket");
    assert!(server.recv(&mut [0; 600]).is_err(), "something was sent");
}
