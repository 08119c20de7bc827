"""How the comparison tells what it found: a table for people, everything as JSON."""

import json
import os
import pathlib
import platform
import time

from .figures import better_c, by_round, ratios, spread, verdicts
from .measure import DISTURBED_CORES


def machine():
    """The machine in words that do not name it."""
    model = "unknown CPU"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} x {model}, {memory_gb:.0f} GB, Linux {platform.release().split('-')[0]}"


def tell(runs, shape, peers):
    """The tables of one shape, as text."""
    mine = [run for run in runs if run.shape == shape.name]
    rounds = len({run.round for run in mine})
    lines = ["", f"{shape.name}: {shape.title} ({rounds} rounds of {shape.window_seconds:g} s)", ""]
    lines += table(_figures(mine, peers))
    lines += ["", "CPU per request as ratios, paired round by round", ""]
    lines += table(_ratios(runs, shape.name, peers))
    lines += _verdicts(runs, shape) + _remarks(mine)
    return "\n".join(lines)


def _figures(runs, peers):
    rows = [("", "CPU us/request", "requests/s", "p50 us", "p99 us", "MB (peak)", "proxy core", "load core")]
    for peer in peers:
        own = [run for run in runs if run.peer == peer]
        if not own:
            continue

        last = max(own, key=lambda run: run.round)
        rows.append(
            (
                peer,
                _spread(spread([run.cpu_us_per_request for run in own]), 1),
                f"{_middle(own, 'requests_per_second'):,.0f}",
                f"{_middle(own, 'p50_us'):,.0f}",
                f"{_middle(own, 'p99_us'):,.0f}",
                f"{last.rss_kb / 1024:.1f} ({last.peak_kb / 1024:.1f})",
                f"{_middle(own, 'proxy_core'):.0%}",
                f"{_middle(own, 'load_core'):.0%}",
            )
        )
    return rows


def _middle(runs, name):
    return spread([getattr(run, name) for run in runs]).median


def _ratios(runs, shape, peers):
    references = [
        ("to the floor", by_round(runs, shape, "floor")),
        ("to Envoy", by_round(runs, shape, "envoy")),
        ("to the better of nginx and HAProxy", better_c(runs, shape)),
    ]
    references = [(title, reference) for title, reference in references if reference]
    rows = [("", *(title for title, _ in references))]
    for peer in peers:
        own = by_round(runs, shape, peer)
        if own:
            found = [ratios(own, reference) for _, reference in references]
            rows.append((peer, *(_spread(ratio, 2) if ratio else "-" for ratio in found)))
    return rows


def _verdicts(runs, shape):
    lines = []
    for what, found, limit, gate, holds in verdicts(runs, shape):
        kind, word = "gate" if gate else "goal", "holds" if holds else "MISSED"
        lines.append(f"{kind} {word}: weft, {what}: {found:.2f}, at most {limit:g}")
    return ["", *lines] if lines else []


def _remarks(runs):
    lines = []
    disturbed = [run for run in runs if run.is_disturbed()]
    if disturbed:
        worst = max(run.other_cores for run in disturbed)
        lines.append(
            f"note: in {len(disturbed)} of {len(runs)} runs other processes used more than "
            f"{DISTURBED_CORES:g} of a core (at most {worst:.2f}), which"
        )
        lines.append(
            "      costs large proxies more than small ones; for figures to quote, run again when it is quiet"
        )
    return ["", *lines] if lines else []


def _spread(value, digits):
    return f"{value.median:,.{digits}f} ({value.least:,.{digits}f} to {value.greatest:,.{digits}f})"


def table(rows):
    """Rows of cells as lines, the first row as their heads, the first column to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row):
        first, *rest = (
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "   ".join([first, *rest]).rstrip()

    return [line(rows[0]), "   ".join("-" * width for width in widths), *map(line, rows[1:])]


def write_json(path, about, runs):
    """Every raw figure, for other tools; `about` says what was asked for and what came of it."""
    document = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        **about,
        "runs": [run.as_dict() for run in runs],
    }
    pathlib.Path(path).write_text(json.dumps(document, indent=1) + "\n")
