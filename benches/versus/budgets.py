"""The table of budgets: what each row should be, what was measured last, and by
which command. Commands note their figures as they go; the table is made of what
was noted, so a command that was run again replaces its own rows alone."""

import json
import os
import re

from servers import ROOT

RESULTS = os.path.join(ROOT, "benches/results")
NOTED = os.path.join(RESULTS, "budgets.json")
README = os.path.join(ROOT, "README.md")

# key, what, unit, digits, goal and must (None where none was set), whether more is better.
ROWS = (
    ("request", "own user work a request, head to answer, exposure in the ring", "µs", 2, 2.0, 3.5, False),
    ("decision", "the decision alone, 100 experiments", "µs", 2, 1.1, 2.5, False),
    ("decision-1000", "the decision at 1,000 experiments", "µs", 1, 12, 25, False),
    ("decision-10000", "the decision at 10,000 experiments", "µs", 0, 120, 250, False),
    ("scan", "sonic-rs ÷ the scanner, a body into slots", "", 2, 2.0, 2.0, True),
    ("floor", "requests/s ÷ the floor server's, both by epoll", "", 2, 0.73, 0.60, True),
    ("floor-uring", "requests/s ÷ the floor server's, both by io_uring", "", 2, None, None, True),
    ("nginx", "requests/s ÷ nginx `return 200`, as shipped (`io = auto`)", "", 2, 1.0, 0.83, True),
    ("uring-1", "io_uring ÷ epoll, 1 connection", "", 2, 1.0, 0.97, True),
    ("uring-16", "io_uring ÷ epoll, 16 connections", "", 2, 1.0, 0.97, True),
    ("uring-64", "io_uring ÷ epoll, 64 connections", "", 2, 1.0, 0.97, True),
    ("uring-256", "io_uring ÷ epoll, 256 connections", "", 2, 1.0, 0.97, True),
    ("uring-1000", "io_uring ÷ epoll, 1,000 connections (÷ the floor servers' own ratio where that is below 1)", "", 2, 1.0, 0.97, True),
    ("uring-deep", "io_uring ÷ epoll, depth 16 (÷ the floor servers' own ratio where that is below 1)", "", 2, 1.0, 0.97, True),
    ("unleash", "Unleash's Rust engine ÷ the decision", "", 0, 50, 25, True),
    ("flask", "requests/s ÷ the Flask + bjoern service, as shipped", "", 1, 40, 30, True),
    ("get", "GET with 6 attributes ÷ floor", "", 2, 0.80, 0.70, True),
    ("tail", "p99.9 at 5,000 requests/s ÷ the floor server's", "", 2, 1.1, None, False),
    ("tail-logger", "p99.9 at 5,000 requests/s, logger busy ÷ logger away", "", 2, 1.1, None, False),
    ("service", "service time inside the worker at 5,000 requests/s, p99.9, as shipped", "µs", 0, 20, 50, False),
    ("calls-epoll", "system calls a request, epoll, 64 busy connections", "", 2, 2.1, None, False),
    ("calls-uring", "system calls a request, io_uring, 64 busy connections", "", 2, 0.1, None, False),
    ("exposure", "an exposure of 26 assignments with context into the ring", "ns", 0, 150, 400, False),
    ("logger", "the logger, ring → file sink, exposures a second of its CPU time", "", 0, 100_000, 50_000, True),
    ("memory", "a worker's own growth over ten million users", "KiB", 0, 0, 64, False),
    ("start", "start to first answer", "ms", 0, 50, 200, False),
)
KEYS = {key for key, *_ in ROWS}
# Held by tests that count, on any machine.
COUNTED = (
    ("heap allocations a request", "0", "`cargo test --test no_alloc`"),
    ("page faults in the steady state", "0", "`cargo test --test counts`"),
    ("requests over 1 ms in the worker with reloads of 10,000 experiments, paired with none", "no more, by a permutation test", "`scripts/soak reload`"),
    ("memory of an idle connection", "at most 200 bytes", "`cargo test --test counts`"),
)


class Budgets:
    """What one command found."""

    def __init__(self, command, machine):
        self.command, self.machine, self.found = command, machine, {}

    def note(self, key, values, measurable=True):
        """`values`: first quartile, median, third."""
        assert key in KEYS, key
        self.found[key] = {
            "values": list(values),
            "measurable": measurable,
            "command": self.command,
            "machine": self.machine,
        }

    def write(self):
        noted = read()
        noted.update(self.found)
        with open(NOTED, "w") as file:
            json.dump({key: noted[key] for key, *_ in ROWS if key in noted}, file, indent=1, ensure_ascii=False)
            file.write("\n")


def read():
    try:
        with open(NOTED) as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def figure(value, digits):
    return f"{value:,.{digits}f}"


def verdict(found, goal, must, more):
    if not found["measurable"]:
        return "unmeasurable here"
    if goal is None:
        return ""
    median = found["values"][1]
    reaches = (lambda bound: median >= bound) if more else (lambda bound: median <= bound)
    if reaches(goal):
        return "goal"
    if must is None:
        return "over the goal"
    return "must" if reaches(must) else "**misses**"


def table():
    """Markdown."""
    noted = read()
    lines = ["| what | goal | must | measured: median (quartiles) | | by |", "| --- | --- | --- | --- | --- | --- |"]
    for key, what, unit, digits, goal, must, more in ROWS:
        sign = "≥" if more else "≤"
        bounds = [f"{sign} {figure(bound, min(digits, 2))}" if bound is not None else "–" for bound in (goal, must)]
        if key not in noted:
            cells = ["not measured", "", ""]
        else:
            found = noted[key]
            first, median, third = (figure(value, digits) for value in found["values"])
            spread = "" if first == median == third else f" ({first} – {third})"
            cells = [f"{median}{spread} {unit}".strip(), verdict(found, goal, must, more), f"`scripts/bench {found['command']}`"]
        lines.append("| " + " | ".join([what, *bounds, *cells]) + " |")
    lines += [f"| {what} | {bound} | – | {bound} | goal | {command} |" for what, bound, command in COUNTED]
    machines = sorted({found["machine"] for found in noted.values()})
    lines += ["", "Measured " + "; ".join(machines) + "."] if machines else []
    return lines


def into_readme():
    """Puts the table between its two marks in the README."""
    with open(README) as file:
        text = file.read()
    begin, end = "<!-- scripts/bench readme -->", "<!-- end -->"
    replaced, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}",
        lambda _: "\n".join([begin, *table(), end]),
        text,
        flags=re.DOTALL,
    )
    if count != 1:
        raise SystemExit(f"README.md has no {begin} … {end}")
    with open(README, "w") as file:
        file.write(replaced)
