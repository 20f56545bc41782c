//! The figures of a process that serves nothing else, for Prometheus's scraper: `GET /metrics` and no more.

use std::{sync::Arc, time::Duration};

use axum::{Router, http::header, routing::get};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

use super::{
    operations::TEXT_0_0_4,
    serve::{ACCEPT_RETRY_MS, HEADER_READ_MS_MAX, http1, with_write_timeout},
};
use passbook_telemetry::metrics::METRICS;

/// How many may look at once; others are cut off.
const CONNECTIONS_MAX: usize = 16;

/// Shows them on `listener` until it is dropped.
pub async fn serve_metrics(listener: TcpListener) {
    let show = get(async || ([(header::CONTENT_TYPE, TEXT_0_0_4)], METRICS.text()));
    let router = Router::new().route("/metrics", show);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let stream = TokioIo::new(Box::pin(with_write_timeout(stream)));
        let connection = http1(HEADER_READ_MS_MAX).serve_connection(stream, TowerToHyperService::new(router.clone()));
        tokio::spawn(async move {
            // Whoever breaks it off has their own reasons.
            let _ = connection.await;
            drop(place);
        });
    }
}
