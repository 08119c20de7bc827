//! What carries the bytes to endpoints: transport sockets, and which endpoint gets which.

use config::origin::Origin;
use config::{TransportSocket, TransportSocketMatch};
use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;

use crate::convert::at::At;
use crate::convert::table::{Message, Told, open};
use crate::convert::values::text;
use crate::convert::{Refused, metadata, tls, typed};

/// The tables of this part.
pub(super) fn tables() -> Vec<Message> {
    vec![pb::cluster::TransportSocketMatch::MESSAGE, RawBuffer::MESSAGE]
}

/// All sockets of a cluster.
pub(super) struct Sockets {
    pub(super) matches: Vec<TransportSocketMatch>,
    pub(super) own: TransportSocket,
}

pub(super) fn sockets(
    matches: Vec<pb::cluster::TransportSocketMatch>,
    own: Option<core::TransportSocket>,
    origin: Option<&Origin>,
    at: &At<'_>,
) -> Result<Sockets, Refused> {
    let mut converted = Vec::with_capacity(matches.len());
    for (index, told) in matches.into_iter().enumerate() {
        let at = at.index("transport_socket_matches", index);
        open!(told, at, pb::cluster::TransportSocketMatch as "envoy.config.cluster.v3.Cluster.TransportSocketMatch" {
            honoured: name, r#match, transport_socket;
        });
        let fields = r#match.map(|told| told.fields).unwrap_or_default();
        converted.push(TransportSocketMatch {
            name: text(name, &at.field("name"))?,
            tls_mode: metadata::tls_mode(fields, &at.field("match"))?,
            // Auto-mTLS: nobody asked for it by name.
            transport_socket: socket(transport_socket, None, &at.field("transport_socket"))?,
        });
    }
    let own = socket(own, origin, &at.field("transport_socket"))?;
    Ok(Sockets { matches: converted, own })
}

fn socket(
    told: Option<core::TransportSocket>,
    origin: Option<&Origin>,
    at: &At<'_>,
) -> Result<TransportSocket, Refused> {
    let Some(told) = told else { return Ok(TransportSocket::RawBuffer) };
    let config = tls::socket_config(told, at)?;
    let at = at.field("typed_config");
    match typed::type_name(&config, &at)? {
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => {
            let told: RawBuffer = typed::decode(&config, &at)?;
            open!(told, at, RawBuffer as "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" {});
            Ok(TransportSocket::RawBuffer)
        }
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => {
            Ok(TransportSocket::Tls(Box::new(tls::upstream(typed::decode(&config, &at)?, origin, &at)?)))
        }
        _ => Err(typed::unknown(&config, &at)),
    }
}
