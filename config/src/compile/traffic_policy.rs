//! Which settings of a DestinationRule hold for one port of one subset.

use crate::istio::{
    ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, LoadBalancerSettings, OutlierDetection,
    PortTrafficPolicy, SimpleLb, TrafficPolicy,
};

/// The blocks that hold; what is `None` is left to the defaults.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Policy<'a> {
    pub(super) connection_pool: Option<&'a ConnectionPoolSettings>,
    pub(super) outlier_detection: Option<&'a OutlierDetection>,
    pub(super) load_balancer: Option<&'a LoadBalancerSettings>,
    pub(super) tls: Option<&'a ClientTlsSettings>,
}

impl<'a> Policy<'a> {
    /// What `policy` says for `port`. Settings of a port replace those of the service whole: what they leave out is
    /// the default.
    pub(super) fn of(policy: Option<&'a TrafficPolicy>, port: u16) -> Policy<'a> {
        Policy::and_whether_of_port(policy, port).0
    }

    /// What `policy` of a service and `subset` of one of its subsets say together for `port`. The subset wins block
    /// by block, or whole where it has settings of the port.
    pub(super) fn of_subset(
        policy: Option<&'a TrafficPolicy>,
        subset: Option<&'a TrafficPolicy>,
        port: u16,
    ) -> Policy<'a> {
        let service = Policy::of(policy, port);
        match Policy::and_whether_of_port(subset, port) {
            (subset, true) => subset,
            (subset, false) => Policy {
                connection_pool: subset.connection_pool.or(service.connection_pool),
                outlier_detection: subset.outlier_detection.or(service.outlier_detection),
                load_balancer: subset.load_balancer.or(service.load_balancer),
                tls: subset.tls.or(service.tls),
            },
        }
    }

    fn and_whether_of_port(policy: Option<&'a TrafficPolicy>, port: u16) -> (Policy<'a>, bool) {
        let Some(policy) = policy else { return (Policy::default(), false) };
        let of_port = policy.port_level_settings.iter().find(|settings| {
            settings.port.as_ref().is_some_and(|selector| selector.number == u32::from(port))
        });
        match of_port {
            Some(settings) => (Policy::whole_of_port(settings), true),
            None => (Policy::whole(policy), false),
        }
    }

    /// The blocks of a policy, without its settings of ports.
    pub(super) fn whole(policy: &'a TrafficPolicy) -> Policy<'a> {
        Policy {
            connection_pool: policy.connection_pool.as_ref(),
            outlier_detection: policy.outlier_detection.as_ref(),
            load_balancer: policy.load_balancer.as_ref(),
            tls: policy.tls.as_ref(),
        }
    }

    /// The blocks of settings of a port.
    pub(super) fn whole_of_port(settings: &'a PortTrafficPolicy) -> Policy<'a> {
        Policy {
            connection_pool: settings.connection_pool.as_ref(),
            outlier_detection: settings.outlier_detection.as_ref(),
            load_balancer: settings.load_balancer.as_ref(),
            tls: settings.tls.as_ref(),
        }
    }
}

/// Whether `policy` itself, without its settings of ports, leaves the choice of the endpoint to the client.
pub(super) fn is_passthrough(policy: Option<&TrafficPolicy>) -> bool {
    let balancer = policy.and_then(|policy| policy.load_balancer.as_ref());
    balancer.and_then(|balancer| balancer.simple) == Some(SimpleLb::Passthrough)
}

/// The TLS mode by which endpoints of `port` are marked.
pub(super) fn tls_mode(policy: Option<&TrafficPolicy>, port: u16) -> Option<ClientTlsMode> {
    marking(policy, port).map(mode)
}

/// What says the TLS mode by which endpoints of `port` are marked. Unlike [`Policy`], a block of the port that says no
/// TLS leaves that of the service.
pub(super) fn marking(policy: Option<&TrafficPolicy>, port: u16) -> Option<&ClientTlsSettings> {
    let policy = policy?;
    let of_port = policy.port_level_settings.iter().find_map(|settings| {
        let is_port = settings.port.as_ref().is_some_and(|selector| selector.number == u32::from(port));
        settings.tls.as_ref().filter(|_| is_port)
    });
    of_port.or(policy.tls.as_ref())
}

/// The mode of `tls`; DISABLE when it says none.
pub(super) fn mode(tls: &ClientTlsSettings) -> ClientTlsMode {
    tls.mode.unwrap_or(ClientTlsMode::Disable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(yaml: &str) -> TrafficPolicy {
        crate::testing::from_yaml(yaml).unwrap()
    }

    const SERVICE: &str = "
loadBalancer: {simple: RANDOM}
tls: {mode: SIMPLE}
portLevelSettings:
- port: {number: 80}
  loadBalancer: {simple: ROUND_ROBIN}
";

    fn blocks(policy: &Policy<'_>) -> (Option<SimpleLb>, Option<ClientTlsMode>) {
        (policy.load_balancer.and_then(|balancer| balancer.simple), policy.tls.and_then(|tls| tls.mode))
    }

    #[test]
    fn port_settings_replace_whole() {
        let service = policy(SERVICE);
        assert_eq!(blocks(&Policy::of(Some(&service), 80)), (Some(SimpleLb::RoundRobin), None));
        assert_eq!(
            blocks(&Policy::of(Some(&service), 81)),
            (Some(SimpleLb::Random), Some(ClientTlsMode::Simple))
        );
        assert_eq!(tls_mode(Some(&service), 80), Some(ClientTlsMode::Simple));
    }

    #[test]
    fn subsets_win_by_block_and_by_port_whole() {
        let service = policy(SERVICE);
        let check = |subset: &str, port, expected| {
            let subset = policy(subset);
            assert_eq!(blocks(&Policy::of_subset(Some(&service), Some(&subset), port)), expected, "{port}");
        };
        check("tls: {mode: DISABLE}", 81, (Some(SimpleLb::Random), Some(ClientTlsMode::Disable)));
        check("tls: {mode: DISABLE}", 80, (Some(SimpleLb::RoundRobin), Some(ClientTlsMode::Disable)));
        let of_port = "portLevelSettings: [{port: {number: 81}, tls: {mode: MUTUAL}}]";
        check(of_port, 81, (None, Some(ClientTlsMode::Mutual)));
        check(of_port, 80, (Some(SimpleLb::RoundRobin), None));
        assert_eq!(
            blocks(&Policy::of_subset(Some(&service), None, 81)),
            (Some(SimpleLb::Random), Some(ClientTlsMode::Simple))
        );
    }
}
