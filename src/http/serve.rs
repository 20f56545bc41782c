//! Accepts connections, at most so many at once, and lets them end in order.
//!
//! In place of `axum::serve`, which bounds neither the number of connections nor the time that headers may take.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::Request};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tower::ServiceExt;

use super::App;

/// How many connections are open at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 16_384;
/// How long the headers of a request may take to arrive.
const HEADER_READ_MS_MAX: u64 = 10_000;
/// How long requests in flight may take to end when the service stops.
const DRAIN_MS_MAX: u64 = 15_000;
/// Pause when no connection can be accepted, as when the process is out of file descriptors.
const ACCEPT_RETRY_MS: u64 = 50;

/// A listening server.
#[derive(Debug)]
pub struct Server {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// Accepts no more, and waits for the requests in flight.
    pub async fn stop(self) {
        // A server that has ended needs no word.
        let _ = self.stop.send(());
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the server did not end as it should");
        }
    }
}

/// Serves `app` on `listener` until told to stop.
pub fn serve(listener: TcpListener, app: App) -> Server {
    let (stop, stopped) = oneshot::channel();
    Server { stop, task: tokio::spawn(run(listener, app, stopped)) }
}

async fn run(listener: TcpListener, app: App, mut stopped: oneshot::Receiver<()>) {
    let router = super::router(app).map_request(|request: Request<Incoming>| request.map(Body::new));
    let service = TowerToHyperService::new(router);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let open = GracefulShutdown::new();
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (stream, place) = tokio::select! {
            (accepted, place) = accepted => match accepted {
                Ok((stream, _)) => (stream, place),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
                    continue;
                }
            },
            _ = &mut stopped => break,
        };
        // Small answers go out at once.
        let _ = stream.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(HEADER_READ_MS_MAX))
            .serve_connection(TokioIo::new(stream), service.clone());
        let connection = open.watch(connection);
        tokio::spawn(async move {
            // A client that breaks its connection off is its own affair.
            let _ = connection.await;
            drop(place);
        });
    }
    drop((listener, service));
    if timeout(Duration::from_millis(DRAIN_MS_MAX), open.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in {DRAIN_MS_MAX} ms");
    }
}
