"""From runs to figures: medians with their spread, and ratios paired round by round.

A ratio is taken between two runs of the same round, so the machine's drift from round to round cancels; told
are the median and the extremes of these ratios.
"""

from dataclasses import dataclass
from statistics import median

C_PROXIES = ("nginx", "haproxy")


@dataclass(frozen=True)
class Limits:
    """What is asked of weft in a shape: CPU per request against others, and memory."""

    gate_envoy: float
    goal_envoy: float
    goal_c: float | None  # times the better of nginx and HAProxy
    gate_resident_mb: float | None = 15


@dataclass(frozen=True)
class Spread:
    """A median with the least and the greatest."""

    median: float
    least: float
    greatest: float


def spread(values):
    """The spread of some values, at least one."""
    return Spread(median(values), min(values), max(values))


def by_round(runs, shape, peer):
    """CPU time per request of one peer in one shape, by round."""
    return {run.round: run.cpu_us_per_request for run in runs if run.shape == shape and run.peer == peer}


def better_c(runs, shape):
    """The lower of nginx and HAProxy, by round; empty unless both ran."""
    nginx, haproxy = (by_round(runs, shape, peer) for peer in C_PROXIES)
    return {number: min(nginx[number], haproxy[number]) for number in nginx.keys() & haproxy.keys()}


def ratios(of, to):
    """The spread of the ratios of the rounds both have; none without such a round."""
    common = of.keys() & to.keys()
    return spread([of[number] / to[number] for number in common]) if common else None


def verdicts(runs, shape, peer="weft"):
    """What is asked of weft in a shape, and whether it holds: (what, found, limit, is a gate, holds)."""
    name, limits = shape.name, shape.limits
    of = by_round(runs, name, peer)
    to_envoy, to_c = ratios(of, by_round(runs, name, "envoy")), ratios(of, better_c(runs, name))
    resident = [run.rss_kb for run in runs if run.shape == name and run.peer == peer]
    asked = []
    if to_envoy:
        asked.append(("CPU per request, times Envoy", to_envoy.median, limits.gate_envoy, True))
        asked.append(("CPU per request, times Envoy", to_envoy.median, limits.goal_envoy, False))
    if to_c and limits.goal_c:
        what = "CPU per request, times the better of nginx and HAProxy"
        asked.append((what, to_c.median, limits.goal_c, False))
    if resident and limits.gate_resident_mb:
        asked.append(("resident MB after the run", resident[-1] / 1024, limits.gate_resident_mb, True))
    return [(what, found, limit, gate, found <= limit) for what, found, limit, gate in asked]
