#!/usr/bin/env python3
"""Compares counted instructions with their budgets: judge.py COUNTS BUDGETS. Called by `gate`."""

import json
import pathlib
import sys

# A budget this much above what is counted guards nothing any more.
SLACK = 0.10


def read_counts(text):
    """Instructions by benchmark, from the lines of JSON that gungraun writes."""
    counts = {}
    for line in text.splitlines():
        summary = json.loads(line)
        (profile,) = summary["profiles"]
        name = f"{summary['function_name']}.{summary['id']}"
        counts[name] = profile["data"]["total"]["metrics"]["Ir"]["values"]["new"]
    return counts


def _lines(text):
    """The words of each line; `#` begins a comment."""
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return [words for words in lines if words]


def read_ratios(text):
    """How much more one benchmark may take than another, from lines of `NAME / OTHER MAXIMUM`."""
    lines = [words for words in _lines(text) if words[1:2] == ["/"]]
    return [(name, other, float(maximum)) for name, _, other, maximum in lines]


def read_budgets(text):
    """Times and budget by benchmark, from lines of `NAME TIMES MAXIMUM`."""
    budgets = {}
    for words in _lines(text):
        if words[1:2] != ["/"]:
            name, times, maximum = words
            if name in budgets:
                raise ValueError(f"{name} has two budgets")
            budgets[name] = (int(times), int(maximum.replace("_", "")))
    return budgets


def judge(counts, budgets, ratios=()):
    """A table, and what is wrong."""
    table = [f"{'benchmark':<32}{'instructions':>14}{'budget':>14}{'of it':>8}"]
    wrong = []
    for name, (times, maximum) in budgets.items():
        if name not in counts:
            wrong.append(f"{name} has a budget and was not counted")
            continue
        count = counts[name] / times
        share = count / maximum
        remark = ""
        if share > 1:
            remark = "  ABOVE"
            wrong.append(f"{name} takes {count:,.0f} instructions; its budget is {maximum:,}")
        elif share < 1 - SLACK:
            remark = f"  far below: a budget of {round(count * 1.03):_} would guard it"
        table.append(f"{name:<32}{count:>14,.0f}{maximum:>14,}{share:>8.1%}{remark}")
    wrong += [f"{name} was counted ({count:,}) and has no budget" for name, count in counts.items() if name not in budgets]
    for name, other, maximum in ratios:
        each = [counts[one] / budgets[one][0] for one in (name, other) if one in counts and one in budgets]
        if len(each) < 2:
            wrong.append(f"{name} and {other} are compared and not both counted")
            continue
        ratio = each[0] / each[1]
        remark = "" if ratio <= maximum else "  ABOVE"
        table.append(f"{f'{name} / {other}':<60}{ratio:>8.3f}{maximum:>8.2f}{remark}")
        if remark:
            wrong.append(f"{name} takes {ratio:.3f} times what {other} does; at most {maximum} are allowed")
    return table, wrong


def main(counts, budgets):
    told = pathlib.Path(budgets).read_text()
    table, wrong = judge(read_counts(pathlib.Path(counts).read_text()), read_budgets(told), read_ratios(told))
    print("\n".join(table))
    for what in wrong:
        print(f"FAILED: {what}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
