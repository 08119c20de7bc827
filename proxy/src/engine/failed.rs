//! Connections that end badly, before or beside any request: what the recorder is told of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::StatusCode;

use super::Engine;
use crate::telemetry::flight::{Cause, Flight};
use crate::time;

/// A connection that ended badly.
pub(crate) struct FailedConnection<'f> {
    /// Name of the listener it came by.
    pub(crate) listener: &'f Arc<str>,
    /// The client.
    pub(crate) client: SocketAddr,
    /// Where the client wanted to go.
    pub(crate) destination: SocketAddr,
    /// When it began.
    pub(crate) since: Instant,
    /// With which status it was answered before it ended, if it was.
    pub(crate) status: Option<StatusCode>,
    /// Response flags.
    pub(crate) flags: &'f str,
    /// Response code details; may be empty.
    pub(crate) details: &'f str,
    /// Why.
    pub(crate) cause: String,
}

impl Engine {
    /// Notes a connection that ended badly, before or beside any request. Its cause holds nothing that a client chose.
    #[cold]
    pub(crate) fn connection_failed(&self, failed: FailedConnection<'_>) {
        let FailedConnection { listener, client, destination, since, status, flags, details, cause } = failed;
        let took = time::now().saturating_duration_since(since);
        let current = self.current.borrow();
        let known = current.snapshot.listeners.get(listener);
        let flight = Flight {
            began: time::wall().checked_sub(took).unwrap_or(SystemTime::UNIX_EPOCH),
            took,
            authority: destination.to_string().into(),
            destination: Some(destination),
            listener: (listener.clone(), None),
            listener_origin: known.and_then(|listener| listener.declared.origin.clone()),
            generation: current.number(),
            status: status.map_or(0, |status| status.as_u16()),
            flags: flags.into(),
            details: details.into(),
            ..Flight::of_connection(client, Cause::new(cause, (&[], "")))
        };
        self.record(flight);
    }

    /// Tells the flight recorder.
    pub(crate) fn record(&self, flight: Flight) {
        if self.recorder.record(flight, self.minute()) {
            self.limit_reached("recorder_causes_max");
        }
    }
}
