//! How many workers there are, and who decided that.
//!
//! [`decide`] is pure; [`Cpu::read`] asks the environment and the kernel once, at the start. Workers start with the
//! first configuration and stay: another number later needs a restart, which a finding then says.

use std::path::Path;

use config::compile::Concurrency;
use config::finding::{Finding, Severity, code};

/// Most workers that are started.
pub(crate) const WORKERS_MAX: usize = 1024;

/// Workers of a process of which nobody says anything, where there are as many cores (as Istio's default was for long).
const WORKERS_DEFAULT: usize = 2;

/// Environment variable with the CPU limit of the container, which Istio's injector sets from the downward API.
pub(crate) const CPU_LIMIT_VARIABLE: &str = "ISTIO_CPU_LIMIT";

/// Environment variable with the CPU request of the container. Neither Istio's injector nor its agent has one, so the
/// name is weft's own.
pub(crate) const CPU_REQUEST_VARIABLE: &str = "WEFT_CPU_REQUEST";

/// What is known of the CPU that the process may use. Amounts are in thousandths of a core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpu {
    /// Cores that the process may run on, whatever its limit.
    pub cores: usize,
    /// What the kernel enforces.
    pub quota: Quota,
    /// The limit that the environment tells.
    pub limit_told: Option<u64>,
    /// The request that the environment tells.
    pub request_told: Option<u64>,
}

/// What the kernel enforces on the container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Quota {
    /// It does not tell.
    #[default]
    Unknown,
    /// It says that there is no limit.
    Unlimited,
    /// So many thousandths of a core.
    Limited(u64),
}

impl Default for Cpu {
    /// One core, of which nothing else is known.
    fn default() -> Cpu {
        Cpu { cores: 1, quota: Quota::Unknown, limit_told: None, request_told: None }
    }
}

/// A number of workers, and who decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkerCount {
    /// At least 1, at most [`WORKERS_MAX`].
    pub workers: usize,
    /// Who decided it.
    pub decided_by: String,
}

/// Decides how many workers there are: as the command line says (0 is nothing), else what Istio's configuration asks for,
/// else the CPU limit, else the CPU request, both rounded up, else two or one per core.
///
/// Without a limit the downward API gives the node's cores for one. Where the kernel tells that there is none and a
/// request is known, the request decides then.
pub(crate) fn decide(told: usize, asked: Option<&Concurrency>, cpu: &Cpu) -> WorkerCount {
    let rounded_up = |thousandths: u64| usize::try_from(thousandths.div_ceil(1000)).unwrap_or(usize::MAX);
    let is_the_nodes = |limit: u64| {
        cpu.quota == Quota::Unlimited && cpu.request_told.is_some() && rounded_up(limit) >= cpu.cores
    };
    let limit_told = cpu.limit_told.filter(|limit| !is_the_nodes(*limit));
    let (workers, by) = match (told, asked, limit_told, cpu.quota, cpu.request_told) {
        (1.., ..) => (told, "--workers".to_owned()),
        (_, Some(Concurrency { workers: 0, asked_by }), ..) => {
            (cpu.cores, format!("{asked_by}: 0, one per core"))
        }
        (_, Some(Concurrency { workers, asked_by }), ..) => {
            (usize::try_from(*workers).unwrap_or(WORKERS_MAX), asked_by.clone())
        }
        (_, _, Some(limit), ..) => {
            (rounded_up(limit), format!("CPU limit in {CPU_LIMIT_VARIABLE}, rounded up"))
        }
        (_, _, _, Quota::Limited(limit), _) => {
            (rounded_up(limit), "CPU limit of the cgroup, rounded up".to_owned())
        }
        (.., Some(request)) => {
            (rounded_up(request), format!("CPU request in {CPU_REQUEST_VARIABLE}, rounded up"))
        }
        _ => (cpu.cores.min(WORKERS_DEFAULT), "default: two, or one per core if there are fewer".to_owned()),
    };
    WorkerCount { workers: workers.clamp(1, WORKERS_MAX), decided_by: by }
}

/// The finding that what is decided now differs from what runs.
pub(super) fn needs_restart(running: &WorkerCount, now: &WorkerCount) -> Option<Finding> {
    (running.workers != now.workers).then(|| {
        Finding::general(
            Severity::Warning,
            code::NEEDS_RESTART,
            format!(
                "{} says {} workers now, but {} run since the start ({})",
                now.decided_by, now.workers, running.workers, running.decided_by
            ),
            "restart the proxy to have as many",
        )
    })
}

impl Cpu {
    /// What `variable` of the environment and the kernel tell.
    ///
    /// # Errors
    ///
    /// When a variable holds no amount of CPU: which one, and what to write.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Cpu, String> {
        let told = |name: &str| match variable(name).filter(|text| !text.is_empty()) {
            // Zero is what the downward API gives for a request that is not written.
            Some(text) => amount(&text)
                .map(|amount| Some(amount).filter(|amount| *amount > 0))
                .ok_or_else(|| format!("{name}: `{text}` is not an amount of CPU; write it like 2 or 500m")),
            None => Ok(None),
        };
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Ok(Cpu {
            cores: cores(),
            quota: quota(Path::new("/sys/fs/cgroup"), &own),
            limit_told: told(CPU_LIMIT_VARIABLE)?,
            request_told: told(CPU_REQUEST_VARIABLE)?,
        })
    }
}

/// An amount of CPU as Kubernetes writes it, in thousandths of a core, rounded up.
fn amount(text: &str) -> Option<u64> {
    if let Some(thousandths) = text.strip_suffix('m') {
        return thousandths.parse().ok();
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: u64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    let more = u64::from(fraction.bytes().skip(3).any(|byte| byte != b'0'));
    whole.checked_mul(1000)?.checked_add(digits.parse::<u64>().ok()? + more)
}

/// Cores that the process may run on. The standard library's number takes limits into account, which are another matter.
fn cores() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.and_then(|list| listed(list.trim()))
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

/// How many numbers a list such as `0-3,8` has.
fn listed(list: &str) -> Option<usize> {
    list.split(',').try_fold(0_usize, |count, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        count.checked_add(last.checked_sub(first)? + 1)
    })
}

/// What the kernel enforces: the smallest quota of the process's cgroup and those it is in. `own` is what
/// `/proc/self/cgroup` says.
fn quota(root: &Path, own: &str) -> Quota {
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    // Seen from outside of its namespace a path leads out of the tree.
    let own = own.filter(|path| !path.contains("..")).unwrap_or_default();
    let directory = root.join(own);
    let above = directory.ancestors().take_while(|ancestor| ancestor.starts_with(root));
    let version_2 = above.filter_map(|directory| {
        let text = std::fs::read_to_string(directory.join("cpu.max")).ok()?;
        let (quota, period) = text.trim().split_once(' ')?;
        if quota == "max" { Some(None) } else { Some(Some(share(quota, period)?)) }
    });
    let version_1 = ["cpu", "cpu,cpuacct"].into_iter().filter_map(|controller| {
        let read = |file: &str| std::fs::read_to_string(root.join(controller).join(file)).ok();
        let (quota, period) = (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?);
        if quota.trim() == "-1" { Some(None) } else { Some(Some(share(quota.trim(), period.trim())?)) }
    });
    version_2.chain(version_1).fold(Quota::Unknown, |known, found| match (known, found) {
        (Quota::Limited(known), Some(found)) => Quota::Limited(known.min(found)),
        (_, Some(found)) => Quota::Limited(found),
        (Quota::Limited(known), None) => Quota::Limited(known),
        (_, None) => Quota::Unlimited,
    })
}

/// Time of CPU in a period, in thousandths of a core, rounded up.
fn share(quota: &str, period: &str) -> Option<u64> {
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota.saturating_mul(1000).div_ceil(period))
}

#[cfg(test)]
#[path = "workers/tests.rs"]
mod tests;
