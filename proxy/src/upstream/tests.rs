//! An upstream whose clients choose the endpoint.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::task::LocalSet;

use super::*;
use crate::snapshot::testing;

/// A connection that is being made for a client who has left is wanted by nobody: it is closed, and not counted any more.
#[tokio::test]
async fn a_connection_for_a_client_who_has_left_does_not_stay() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cluster = Arc::new(testing::cluster(&[], |declared| {
        declared.discovery = config::DiscoveryType::OriginalDst;
        declared.protocol = config::HttpProtocol::Http2;
    }));
    let (registry, counts) = (Registry::new(&config::Limits::default()), cluster.shared.clone());
    let worker = (&Rc::default(), &Unread::unbounded(), &Rc::default());
    let upstream = Upstream::new(cluster, worker, (&registry, &registry.shard()), 0);
    LocalSet::new()
        .run_until(async {
            {
                let chosen = upstream.choose(&upstream.view(), Destination { address, source: None });
                let mut asking = pin!(chosen.pool.h2());
                let polled = asking.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(polled, Poll::Pending));
                assert_eq!(counts.connections.get(), 1);
            }
            upstream.sweep(time::now());
            let accepted = listener.accept().await.unwrap();
            while counts.connections.get() > 0 {
                tokio::task::yield_now().await;
            }
            drop(accepted);
        })
        .await;
}
