//! What is asked: Istio's arguments by their names.
//!
//! Every one is optional here. What is not given is taken from the environment, and then from a default; see `settings`.

/// Arguments of istio-iptables 1.32. An empty list means none.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(args_override_self = true)]
pub(crate) struct Arguments {
    /// Port on which the proxy takes outbound connections; 15001.
    #[arg(short = 'p', long, value_name = "PORT")]
    pub(super) envoy_port: Option<String>,

    /// Port on which the proxy takes inbound connections; $INBOUND_CAPTURE_PORT or 15006.
    #[arg(short = 'z', long, value_name = "PORT")]
    pub(super) inbound_capture_port: Option<String>,

    /// Port of tunnels, which are not redirected; $INBOUND_TUNNEL_PORT or 15008.
    #[arg(short = 'e', long, value_name = "PORT")]
    pub(super) inbound_tunnel_port: Option<String>,

    /// Users whose traffic is the proxy's; $PROXY_UID, or the user $ENVOY_USER (istio-proxy) if there is one, or 1337.
    #[arg(short = 'u', long, value_name = "USER,...")]
    pub(super) proxy_uid: Option<String>,

    /// Groups whose traffic is the proxy's; $PROXY_GID, or the same as the users.
    #[arg(short = 'g', long, value_name = "GROUP,...")]
    pub(super) proxy_gid: Option<String>,

    /// How inbound connections are caught: REDIRECT or TPROXY; $ISTIO_INBOUND_INTERCEPTION_MODE or REDIRECT.
    #[arg(short = 'm', long, value_name = "MODE")]
    pub(super) istio_inbound_interception_mode: Option<String>,

    /// Mark of what TPROXY catches; $ISTIO_INBOUND_TPROXY_MARK or 1337.
    #[arg(short = 't', long, value_name = "MARK")]
    pub(super) istio_inbound_tproxy_mark: Option<String>,

    /// Routing table of what TPROXY catches; $ISTIO_INBOUND_TPROXY_ROUTE_TABLE or 133.
    #[arg(short = 'r', long, value_name = "NUMBER")]
    pub(super) istio_inbound_tproxy_route_table: Option<String>,

    /// Inbound ports that are caught, `*` for all; $ISTIO_INBOUND_PORTS or `*`.
    #[arg(short = 'b', long, value_name = "PORT,...")]
    pub(super) istio_inbound_ports: Option<String>,

    /// Inbound ports that are not, where all are; $ISTIO_LOCAL_EXCLUDE_PORTS or 15090,15021,15020.
    #[arg(short = 'd', long, value_name = "PORT,...")]
    pub(super) istio_local_exclude_ports: Option<String>,

    /// Ranges of addresses to which outbound connections are caught, `*` for all; $ISTIO_SERVICE_CIDR or `*`.
    #[arg(short = 'i', long, value_name = "CIDR,...")]
    pub(super) istio_service_cidr: Option<String>,

    /// Ranges to which they are not; $ISTIO_SERVICE_EXCLUDE_CIDR.
    #[arg(short = 'x', long, value_name = "CIDR,...")]
    pub(super) istio_service_exclude_cidr: Option<String>,

    /// Ports to which outbound connections are caught whatever the address; $ISTIO_OUTBOUND_PORTS.
    #[arg(short = 'q', long, value_name = "PORT,...")]
    pub(super) istio_outbound_ports: Option<String>,

    /// Ports to which they are not; $ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE.
    #[arg(short = 'o', long, value_name = "PORT,...")]
    pub(super) istio_local_outbound_ports_exclude: Option<String>,

    /// Interfaces behind which virtual machines are: what arrives there is outbound; $KUBE_VIRT_INTERFACES.
    #[arg(short = 'k', long, value_name = "NAME,...")]
    pub(super) kube_virt_interfaces: Option<String>,

    /// Interfaces where nothing is caught; $ISTIO_EXCLUDE_INTERFACES.
    #[arg(short = 'c', long, value_name = "NAME,...")]
    pub(super) istio_exclude_interfaces: Option<String>,

    /// Catch questions for names to the resolvers of /etc/resolv.conf; $ISTIO_META_DNS_CAPTURE or $REDIRECT_DNS.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) redirect_dns: Option<String>,

    /// With --redirect-dns, catch them to any address; $CAPTURE_ALL_DNS.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) capture_all_dns: Option<String>,

    /// Drop packets that belong to no connection instead of having them answered with a reset; $INVALID_DROP or
    /// $DROP_INVALID.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) drop_invalid: Option<String>,

    /// Catch IPv6 beside IPv4 where there are addresses of both; $ISTIO_DUAL_STACK or $DUAL_STACK.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) dual_stack: Option<String>,

    /// Rules of nftables, by nft, instead of iptables; $NATIVE_NFTABLES.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) native_nftables: Option<String>,

    /// Which iptables is used: nft or legacy; $FORCE_IPTABLES_BINARY, or found as Istio does: legacy where it has
    /// rules already, else nft.
    #[arg(long, value_name = "KIND")]
    pub(super) force_iptables_binary: Option<String>,

    /// Network namespace to work in, as a file such as /run/netns/NAME; $NETWORK_NAMESPACE or the own one.
    #[arg(long, value_name = "FILE")]
    pub(super) network_namespace: Option<String>,

    /// Say what would be run, and run nothing; $DRY_RUN.
    #[arg(short = 'n', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) dry_run: Option<String>,

    /// Apply no rules; $SKIP_RULE_APPLY.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) skip_rule_apply: Option<String>,

    /// Prove the rules by a connection; $RUN_VALIDATION.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) run_validation: Option<String>,

    /// Port to which that connection is opened; $IPTABLES_PROBE_PORT or 15002.
    #[arg(long, value_name = "PORT")]
    pub(super) iptables_probe_port: Option<String>,

    /// How long it may take until it arrives; $PROBE_TIMEOUT or 5s.
    #[arg(long, value_name = "DURATION")]
    pub(super) probe_timeout: Option<String>,

    /// Replace rules of ours that are there and differ, instead of failing; $RECONCILE.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) reconcile: Option<String>,

    /// Replace rules of ours even if they are as they should; $FORCE_APPLY.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) force_apply: Option<String>,

    /// Remove the rules instead of applying them; $CLEANUP_ONLY.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) cleanup_only: Option<String>,

    /// Have the rules log packets, which none here does; $IPTABLES_TRACE_LOGGING.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) iptables_trace_logging: Option<String>,

    /// Remove what somebody else has put in chains that are called as ours are, too.
    #[arg(skip)]
    pub(super) force_remove: bool,
}

impl Arguments {
    /// The same arguments, to remove the rules; and if it is forced, somebody else's in chains that are called as ours.
    pub(crate) fn to_remove(&self, force_remove: bool) -> Arguments {
        Arguments { cleanup_only: Some("true".to_owned()), force_remove, ..self.clone() }
    }
}
