//! Envoy's response flags: why an answer is not what the upstream said.

use std::fmt::Write as _;

/// One reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Flag {
    /// `DC`: the client closed the connection.
    DownstreamConnectionTermination,
    /// `DR`: the client reset the stream.
    DownstreamRemoteReset,
    /// `UH`: the cluster has no healthy endpoint.
    NoHealthyUpstream,
    /// `UT`: the upstream took too long.
    UpstreamRequestTimeout,
    /// `UR`: the upstream reset the stream.
    UpstreamRemoteReset,
    /// `UF`: no connection to the upstream could be made.
    UpstreamConnectionFailure,
    /// `UC`: the upstream closed the connection.
    UpstreamConnectionTermination,
    /// `UO`: a limit of the cluster was met.
    UpstreamOverflow,
    /// `URX`: it was tried as often as allowed.
    UpstreamRetryLimitExceeded,
    /// `NR`: no rule matches.
    NoRouteFound,
    /// `DPE`: the client broke the protocol.
    DownstreamProtocolError,
    /// `UPE`: the upstream broke the protocol.
    UpstreamProtocolError,
    /// `NC`: the cluster does not exist.
    NoClusterFound,
    /// `DT`: the connection was open for as long as it may be.
    DurationTimeout,
    /// `OM`: the process has too much to do (Envoy's overload manager).
    OverloadManager,
}

impl Flag {
    /// In the order they are written. Envoy writes them in the order they came up: that retries are exhausted is
    /// noticed before the last failure is noted, and that the client has left comes last.
    const ALL: [Flag; 15] = [
        Flag::UpstreamRetryLimitExceeded,
        Flag::NoHealthyUpstream,
        Flag::UpstreamRequestTimeout,
        Flag::UpstreamRemoteReset,
        Flag::UpstreamConnectionFailure,
        Flag::UpstreamConnectionTermination,
        Flag::UpstreamOverflow,
        Flag::NoRouteFound,
        Flag::DownstreamProtocolError,
        Flag::UpstreamProtocolError,
        Flag::NoClusterFound,
        Flag::DurationTimeout,
        Flag::OverloadManager,
        Flag::DownstreamConnectionTermination,
        Flag::DownstreamRemoteReset,
    ];

    /// Envoy's short name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Flag::DownstreamConnectionTermination => "DC",
            Flag::DownstreamRemoteReset => "DR",
            Flag::NoHealthyUpstream => "UH",
            Flag::UpstreamRequestTimeout => "UT",
            Flag::UpstreamRemoteReset => "UR",
            Flag::UpstreamConnectionFailure => "UF",
            Flag::UpstreamConnectionTermination => "UC",
            Flag::UpstreamOverflow => "UO",
            Flag::UpstreamRetryLimitExceeded => "URX",
            Flag::NoRouteFound => "NR",
            Flag::DownstreamProtocolError => "DPE",
            Flag::UpstreamProtocolError => "UPE",
            Flag::NoClusterFound => "NC",
            Flag::DurationTimeout => "DT",
            Flag::OverloadManager => "OM",
        }
    }
}

/// A set of reasons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Flags(u32);

impl Flags {
    /// Adds one.
    pub(crate) fn insert(&mut self, flag: Flag) {
        self.0 |= 1 << flag as u8;
    }

    /// Whether it is in.
    pub(crate) fn contains(self, flag: Flag) -> bool {
        self.0 & (1 << flag as u8) != 0
    }

    /// Whether none is in.
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set as a number, for keys.
    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    /// As access logs and metrics write it: names separated by commas, `-` for none.
    pub(crate) fn text(self) -> String {
        if self.is_empty() {
            return "-".to_owned();
        }
        let mut text = String::new();
        for flag in Flag::ALL {
            if self.contains(flag) {
                let comma = if text.is_empty() { "" } else { "," };
                // Writing to a string cannot fail.
                let _ = write!(text, "{comma}{}", flag.name());
            }
        }
        text
    }
}
