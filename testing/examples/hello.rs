//! A server that answers at once, whatever is asked: what HTTP alone costs on this machine.
//!
//! It is made as the receiver is (hyper on tokio, HTTP/1.1), reads each body and does nothing with it. Prints the
//! address that it listens on.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "an example for measuring")]

use std::{convert::Infallible, future::poll_fn, pin::Pin};

use hyper::{
    Request, Response,
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

async fn answer(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let mut body = request.into_body();
    while let Some(Ok(_)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {}
    Ok(Response::new(r#"{"ok":true}"#.to_owned()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}
