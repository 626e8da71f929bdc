//! hyper on a single-threaded tokio: reads the whole request, gives a constant answer.

use std::convert::Infallible;

use anyhow::Result;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use peers::{Options, listen, pin};
use tokio::net::TcpListener;

fn main() -> Result<()> {
    let options = Options::read(&["port", "cpu", "body-size"])?;
    pin(options.text("cpu"))?;
    let body = Bytes::from(vec![b'x'; options.get("body-size", 1024)?]);
    let listener = listen(options.get("port", 0)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(serve(listener, body)))
}

async fn serve(listener: std::net::TcpListener, body: Bytes) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let body = body.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| answer(request, body.clone()));
            let mut http = http1::Builder::new();
            http.pipeline_flush(true);
            // A peer that goes away is no fault of ours.
            let _ = http.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, body: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
