//! Who told a setting: the object something is compiled from, the mesh, or nobody, so that Istio's default holds. An
//! explanation names it beside the value.

/// A setting that an object may tell, or else MeshConfig.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Setting {
    /// How long a request may take: [`Forward::timeout`](crate::Forward).
    Timeout,
    /// When it is tried again: [`Forward::retry_policy`](crate::Forward).
    Retries,
    /// [`Cluster::load_balancing`](crate::Cluster).
    LoadBalancing,
    /// [`Cluster::locality_weighted`](crate::Cluster), and the priorities of its endpoints.
    Locality,
    /// [`Cluster::connect_timeout`](crate::Cluster).
    ConnectTimeout,
    /// [`Cluster::idle_timeout`](crate::Cluster).
    IdleTimeout,
    /// [`Cluster::protocol`](crate::Cluster), where it is not the port's own.
    Protocol,
    /// [`Cluster::outlier_detection`](crate::Cluster).
    OutlierDetection,
    /// [`CircuitBreakers::max_connections`](crate::CircuitBreakers).
    MaxConnections,
    /// [`CircuitBreakers::max_pending_requests`](crate::CircuitBreakers).
    MaxPendingRequests,
    /// [`CircuitBreakers::max_requests`](crate::CircuitBreakers).
    MaxRequests,
    /// [`CircuitBreakers::max_retries`](crate::CircuitBreakers).
    MaxRetries,
    /// [`Cluster::transport_socket`](crate::Cluster).
    Tls,
    /// [`TcpProxy::max_connection_duration`](crate::TcpProxy), and that of the cluster.
    MaxConnectionDuration,
    /// [`TcpProxy::idle_timeout`](crate::TcpProxy).
    TcpIdleTimeout,
}

/// Who told a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToldBy {
    /// The object that is the origin.
    Object,
    /// MeshConfig.
    Mesh,
    /// Nobody: it is the default of Istio, or of Envoy where Istio leaves that.
    Nobody,
    /// A control plane that does not say because of whom.
    Unknown,
}

impl ToldBy {
    /// Whose default it is, in words; `None` of what the object tells.
    pub fn whose_default(self) -> Option<&'static str> {
        match self {
            ToldBy::Object => None,
            ToldBy::Mesh => Some("mesh default"),
            ToldBy::Nobody => Some("Istio default"),
            ToldBy::Unknown => Some("told by the control plane"),
        }
    }
}

/// Who told each [`Setting`] of a cluster or rule. Nobody told what is not entered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    object: u16,
    mesh: u16,
}

impl Told {
    /// Everything is told, and by whom is not known: what comes over xDS.
    pub const UNKNOWN: Told = Told { object: u16::MAX, mesh: u16::MAX };

    /// With these settings by the object, as far as each is told.
    #[must_use]
    pub fn by_object<const N: usize>(mut self, settings: [(Setting, bool); N]) -> Told {
        self.object |= bits(settings);
        self
    }

    /// With these settings by the mesh, as far as each is told. What the object tells too, the object has told.
    #[must_use]
    pub fn by_mesh<const N: usize>(mut self, settings: [(Setting, bool); N]) -> Told {
        self.mesh |= bits(settings);
        self
    }

    /// Who told a setting.
    pub fn by(self, setting: Setting) -> ToldBy {
        let bit = 1 << setting as u8;
        if self == Told::UNKNOWN {
            ToldBy::Unknown
        } else if self.object & bit != 0 {
            ToldBy::Object
        } else if self.mesh & bit != 0 {
            ToldBy::Mesh
        } else {
            ToldBy::Nobody
        }
    }
}

fn bits<const N: usize>(settings: [(Setting, bool); N]) -> u16 {
    settings.into_iter().filter(|(_, told)| *told).fold(0, |bits, (setting, _)| bits | 1 << setting as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_wins_over_the_mesh() {
        let told = Told::default()
            .by_mesh([(Setting::ConnectTimeout, true), (Setting::Retries, true), (Setting::Timeout, false)])
            .by_object([(Setting::ConnectTimeout, true), (Setting::MaxRetries, true)]);
        let by = [Setting::ConnectTimeout, Setting::Retries, Setting::Timeout, Setting::MaxRetries]
            .map(|setting| told.by(setting));
        assert_eq!(by, [ToldBy::Object, ToldBy::Mesh, ToldBy::Nobody, ToldBy::Object]);
        assert_eq!(Told::UNKNOWN.by(Setting::Retries), ToldBy::Unknown);
    }
}
