"""splitd against its peers on this machine. Run by scripts/bench, which builds.

Every table says how it was measured; every run begins with its controls, and
where they fail the machine can't tell what is asked and the table says so.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from urllib.parse import quote

import budgets
import daemon
import plot
from budgets import RESULTS, Budgets
from rounds import Load, Pairs, quartiles
from servers import LOAD_CPU, ROOT, SERVER_CPU, Flask, Floor, Hyper, Nginx, Splitd, binary, sized, splitd_has

EXPERIMENTS = "tests/golden/typical.experiments.json"
REQUESTS = "tests/golden/typical.requests.ndjson"
BODIES = {"bodies": os.path.join(ROOT, REQUESTS)}
GET_ATTRIBUTES = ("platform", "country", "app_version", "age", "is_subscriber", "days_since_signup")
# What the controls must read.
SAME = (0.97, 1.03)
BUSY_NS, BUSY = 1000, (0.80, 0.92)
TAIL_SAME = (0.8, 1.25)
# A generator that is later than this at p99.9 was halted by the machine.
STEADY_US = 100


class Report:
    """A table that grows on the terminal and ends in a file."""

    def __init__(self, name, title, note):
        self.path = os.path.join(RESULTS, f"{name}.md")
        self.budgets = Budgets(name, machine())
        self.lines = [f"## {title}", "", note, "", f"Measured by `scripts/bench {name}` {machine()}.", ""]
        print("\n".join(self.lines), flush=True)

    def say(self, *lines):
        self.lines += lines
        print("\n".join(lines), flush=True)

    def head(self, *cells):
        self.say("| " + " | ".join(cells) + " |", "|" + " --- |" * len(cells))

    def row(self, *cells):
        self.say("| " + " | ".join(str(cell) for cell in cells) + " |")

    def note(self, key, values, measurable=True):
        """A figure for the table of budgets."""
        self.budgets.note(key, values, measurable)

    def write(self):
        self.budgets.write()
        with open(self.path, "w") as file:
            file.write("\n".join(self.lines) + "\n")
        print(f"→ {os.path.relpath(self.path, ROOT)}", file=sys.stderr)


def machine():
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown CPU")
    return f"on {time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs ({model}), Linux {os.uname().release.split('-')[0]}"


def spread(values, digits=3):
    first, median, third = values
    return f"**{median:.{digits}f}** ({first:.{digits}f} – {third:.{digits}f})"


def get_targets(directory):
    """The requests as GET targets with six attributes."""
    path = os.path.join(directory, "targets")
    with open(BODIES["bodies"]) as source, open(path, "w") as out:
        for line in source:
            request = json.loads(line)
            given = {**request["units"], **{name: request["attributes"].get(name) for name in GET_ATTRIBUTES}}
            text = lambda value: value if isinstance(value, str) else json.dumps(value)
            pairs = (f"{name}={quote(text(value))}" for name, value in given.items() if value is not None)
            out.write("/v1/assign?" + "&".join(pairs) + "\n")
    return {"targets": path}


def calibrate(experiments, requests=BODIES):
    """The mean size of splitd's answers to these requests, so that peers answer with as many bytes."""
    with Splitd(experiments) as splitd:
        result = Load(requests, io="epoll").once(splitd)
        return round(result["bytes"] / result["answers"])


# ── Throughput ─────────────────────────────────────────────────────────────


def pairs_row(report, pairs, goal="", key=None, judged=None):
    """`key`: of the budget that the pair is for, if the controls were good."""
    a, b = pairs.a, pairs.b
    if key:
        # Where the generator was the limit, the cost is the figure.
        by, ratio = ("CPU a request", pairs.cost_ratio()) if pairs.limited_by_load() else ("requests/s", pairs.rate_ratio())
        report.note(key, ratio, judged[by])
    slack = pairs.limited_by_load()
    limited = " ⁕" if slack else ""
    report.row(
        f"{a.name} ÷ {b.name}",
        spread(pairs.rate_ratio()) + limited,
        f"{pairs.best_ratio():.3f}",
        spread(pairs.cost_ratio()),
        f"{pairs.rate(0):,.0f} · {pairs.rate(1):,.0f}",
        f"{pairs.server_ns(0) / 1000:.2f} · {pairs.server_ns(1) / 1000:.2f}",
        goal,
    )
    return pairs


def controls(report, load, size, count):
    """Whether the machine, now, can tell what is asked."""
    judged = {}
    with Floor("epoll", size) as floor, Floor("epoll", size, name="the same") as same:
        with Floor("epoll", size, busy_ns=BUSY_NS, name=f"floor (epoll) + {BUSY_NS / 1000:g} µs") as busy:
            pairs_same = pairs_row(report, Pairs(floor, same, load, count), "control: within 3 %")
            pairs_busy = pairs_row(report, Pairs(busy, floor, load, count), "control: 0.80 to 0.92")
    for figure, ratio in (("requests/s", Pairs.rate_ratio), ("CPU a request", Pairs.cost_ratio)):
        same_reads, busy_reads = ratio(pairs_same)[1], ratio(pairs_busy)[1]
        judged[figure] = SAME[0] <= same_reads <= SAME[1] and BUSY[0] <= busy_reads <= BUSY[1]
    return judged


def verdict(report, judged):
    report.say("")
    for figure, good in judged.items():
        report.say(f"Controls by {figure}: " + ("good." if good else "**unmeasurable here**: they do not read what they must."))
    report.say(
        "",
        "Ratios: median (first – third quartile) over pairs of rounds; over 1 is in favour of the first. "
        "⁕: a server had time to spare, so the generator was the limit and the cost (CPU time a request, "
        "the second's ÷ the first's) is the figure. Best ÷ best is of requests/s.",
        "",
    )


HEAD = ("pair", "requests/s", "best ÷ best", "CPU a request", "requests/s each", "CPU µs each", "goal")


def throughput(arguments):
    report = Report(
        "throughput",
        "Requests a second, one worker on one core",
        f"Server on CPU {SERVER_CPU}, generator on CPU {LOAD_CPU} ({arguments.load_io}), the `typical` vectors as POST bodies over "
        f"{arguments.connections} connections, rounds of 0.3 s after 0.15 s of warm-up, A B B A, {arguments.pairs} pairs. Peers "
        "answer with as many bytes, constant ones but for Flask. splitd records every exposure; its logger stands still in a "
        "round and catches up between rounds, as if it had a CPU of its own, unless said otherwise.",
    )
    size = calibrate(EXPERIMENTS)
    count = arguments.pairs
    load = Load(BODIES, arguments.connections, io=arguments.load_io)
    uring = splitd_has("io_uring")
    report.head(*HEAD)
    judged = controls(report, load, size, count)
    with contextlib.ExitStack() as stack:
        run = stack.enter_context
        splitd = run(Splitd(EXPERIMENTS))
        floor, floor_uring = run(Floor("epoll", size)), run(Floor("uring", size))
        by_uring = run(Splitd(EXPERIMENTS, io="io_uring")) if uring else None
        shipped = by_uring or splitd
        with counted_calls(report, "calls-epoll", splitd):
            pairs_row(report, Pairs(splitd, floor, load, count), "0.73 (must 0.60)", "floor", judged)
        if uring:
            with counted_calls(report, "calls-uring", by_uring):
                pairs_row(report, Pairs(by_uring, floor_uring, load, count), "", "floor-uring", judged)
            pairs_row(report, Pairs(by_uring, splitd, load, count), "1.0 (must 0.97)")
        pairs_row(report, Pairs(floor_uring, floor, load, count))
        nginx = run(sized(Nginx, size))
        pairs_row(report, Pairs(shipped, nginx, load, count), "1.0 (must 0.83)", "nginx", judged)
        if uring:
            pairs_row(report, Pairs(splitd, nginx, load, count))
        pairs_row(report, Pairs(shipped, run(sized(Hyper, size)), load, count))
        flask = run(Flask(EXPERIMENTS))
        pairs_row(report, Pairs(shipped, flask, load, count), "40 (must 30)", "flask", judged)
        flask.stop()
        same = run(Splitd(EXPERIMENTS, logger="same", name="splitd (epoll), logger on its CPU"))
        pairs_row(report, Pairs(same, splitd, load, count))
        same.stop()
        # At a depth the sockets cost less, so what a server does itself shows more.
        deep = load.but(depth=16)
        floor.name, splitd.name = "floor (epoll), depth 16", "splitd (epoll), depth 16"
        pairs_row(report, Pairs(splitd, floor, deep, count))
        if uring:
            by_uring.name, floor_uring.name = "splitd (io_uring), depth 16", "floor (uring), depth 16"
            own, floors = Pairs(by_uring, splitd, deep, count), Pairs(floor_uring, floor, deep, count)
            pairs_row(report, own)
            pairs_row(report, floors)
            report.note("uring-deep", beside_floors(own.rate_ratio(), floors.rate_ratio()), judged["requests/s"])
    with contextlib.ExitStack() as stack:
        targets = get_targets(stack.enter_context(tempfile.TemporaryDirectory()))
        get_size = calibrate(EXPERIMENTS, targets)
        get = Load(targets, arguments.connections, io=arguments.load_io)
        splitd = stack.enter_context(Splitd(EXPERIMENTS, name="splitd (epoll), GET with 6 attributes"))
        floor = stack.enter_context(Floor("epoll", get_size, name="floor (epoll), the same"))
        pairs_row(report, Pairs(splitd, floor, get, count), "0.80 (must 0.70)", "get", judged)
    verdict(report, judged)
    report.say(f"Answers have {size} bytes on average, {get_size} by GET.")
    report.write()


@contextlib.contextmanager
def counted_calls(report, key, splitd):
    """Notes the worker's system calls a request meanwhile."""
    count = lambda: [splitd.metric(name, pool="assign") for name in ("splitd_system_calls_total", "splitd_requests_total")]
    before = count()
    yield
    calls, requests = (after - first for after, first in zip(count(), before))
    report.note(key, [calls / requests] * 3)


# ── Connections ────────────────────────────────────────────────────────────


def connections(arguments):
    report = Report(
        "connections",
        "Throughput against connections",
        "As `throughput`, the servers in turns there and back; medians of requests/s in thousands (CPU µs a request).",
    )
    size = calibrate(EXPERIMENTS)
    counts = [1, 4, 16, 64, 256, 1000]
    rounds = max(3, arguments.pairs // 3)
    report.head(*HEAD)
    judged = controls(report, Load(BODIES, arguments.connections, io=arguments.load_io), size, arguments.pairs)
    verdict(report, judged)
    with contextlib.ExitStack() as stack:
        run = stack.enter_context
        servers = [run(Splitd(EXPERIMENTS)), run(Floor("epoll", size)), run(Floor("uring", size)), run(sized(Nginx, size))]
        if splitd_has("io_uring"):
            servers.insert(1, run(Splitd(EXPERIMENTS, io="io_uring")))
        report.head("connections", *(server.name for server in servers))
        medians = {server.name: [] for server in servers}
        for count in counts:
            load = Load(BODIES, count, io=arguments.load_io)
            # One connection is all wake-ups, which vary the most.
            taken = in_turns(servers, load, rounds * 3 if count == 1 else rounds)
            cells = []
            for server in servers:
                rate = statistics.median(round.rate for round in taken[server.name])
                cost = statistics.median(round.server_ns for round in taken[server.name])
                medians[server.name].append((count, rate))
                cells.append(f"{rate / 1000:.1f} ({cost / 1000:.2f})")
            report.row(count, *cells)
            rates = {server.name: [round.rate for round in taken[server.name]] for server in servers}
            if "splitd (io_uring)" in rates and f"uring-{count}" in budgets.KEYS:
                ratio = quartiles([a / b for a, b in zip(rates["splitd (io_uring)"], rates["splitd (epoll)"])])
                floors = quartiles([a / b for a, b in zip(rates["floor (uring)"], rates["floor (epoll)"])])
                report.note(f"uring-{count}", beside_floors(ratio, floors) if count >= 1000 else ratio, judged["requests/s"])
    series = [(name + ("*" if "floor" in name else ""), points) for name, points in medians.items()]
    plot.lines(
        os.path.join(RESULTS, "connections.svg"),
        "Requests/s against connections, one core",
        "connections",
        "requests/s",
        series,
    )
    report.say("", "![requests/s against connections](connections.svg)")
    report.write()


def beside_floors(ratio, floors):
    """io_uring ÷ epoll where less than 1 can be had: the floor servers' own ratio is what can."""
    return [value / min(floors[1], 1) for value in ratio]


def in_turns(servers, load, rounds):
    """Rounds of several servers, there and back."""
    taken = {server.name: [] for server in servers}
    for number in range(rounds):
        for server in servers if number % 2 == 0 else reversed(servers):
            taken[server.name].append(load.round(server))
    return taken


# ── Latency ────────────────────────────────────────────────────────────────


class Tail:
    """Histograms of rounds, put together."""

    def __init__(self, rounds, what):
        buckets = {}
        for round in rounds:
            for value, count in round.result[what]["buckets"]:
                buckets[value] = buckets.get(value, 0) + count
        self.buckets = sorted(buckets.items())
        self.count = sum(buckets.values())
        self.max = max(round.result[what]["max"] for round in rounds)

    def at(self, quantile):
        """Nothing where nothing was measured, as when the generator never came to send."""
        rank, total = quantile * self.count, 0
        for value, count in self.buckets:
            total += count
            if total >= rank:
                return min(value, self.max)
        return self.max


def microseconds(ns):
    return f"{ns / 1000:.1f}" if ns < 1e6 else f"{ns / 1000:.0f}"


def latency_rows(report, taken, names):
    for name in names:
        rounds = taken[name]
        latency, lateness = Tail(rounds, "latency"), Tail(rounds, "lateness")
        # By round, to show how far rounds lie apart.
        by_round = quartiles([round.result["latency"]["p99.9"] / 1000 for round in rounds])
        report.row(
            name,
            *(microseconds(latency.at(quantile)) for quantile in (0.5, 0.9, 0.99, 0.999)),
            microseconds(latency.max),
            spread(by_round, 1),
            f"{microseconds(lateness.at(0.5))} · {microseconds(lateness.at(0.999))} · {microseconds(lateness.max)}",
            f"{latency.count:,}",
        )


LATENCY_HEAD = (
    "server", "p50", "p90", "p99", "p99.9", "max", "p99.9 by round", "generator late by p50 · p99.9 · max", "requests"
)


def latency(arguments):
    rate, measure_ms = 5000, 1000
    report = Report(
        "latency",
        f"Latency at {rate:,} requests/s",
        f"Open loop: requests are due at fixed times over {arguments.connections} connections, and latency counts from when a "
        "request was due, in microseconds as the client sees it. How much later than due the generator sent is its own "
        "lateness; a tail that is no longer than that is the machine's. Rounds of 1 s, the servers in turns there and back. "
        "The logger shares the server's CPU (niced); `busy`: it has a second's backlog to work off; `away`: it stands still.",
    )
    size = calibrate(EXPERIMENTS)
    load = Load(BODIES, arguments.connections, rate=rate, measure_ms=measure_ms)
    rounds = max(6, arguments.pairs)
    with contextlib.ExitStack() as stack:
        run = stack.enter_context
        servers = [
            run(Floor("epoll", size)),
            run(Floor("epoll", size, name="floor (epoll) again: the control")),
            run(Splitd(EXPERIMENTS, logger="away", name="splitd, logger away")),
            run(Splitd(EXPERIMENTS, logger="busy", name="splitd, logger busy")),
            run(Splitd(EXPERIMENTS, logger="same", name="splitd, logger as it comes")),
        ]
        if splitd_has("io_uring"):
            servers.append(run(Splitd(EXPERIMENTS, io="io_uring", logger="same", name="splitd (io_uring), logger as it comes")))
        taken = in_turns(servers, load, rounds)
        report.head(*LATENCY_HEAD)
        latency_rows(report, taken, [server.name for server in servers])
        floor_tail = Tail(taken[servers[0].name], "latency").at(0.999)
        report.say("", "p99.9 against the floor server's: " + ", ".join(
            f"{server.name} {Tail(taken[server.name], 'latency').at(0.999) / floor_tail:.2f}" for server in servers[1:]
        ))
        by_round = lambda a, b: quartiles(
            [own.result["latency"]["p99.9"] / other.result["latency"]["p99.9"] for own, other in zip(taken[servers[a].name], taken[servers[b].name])]
        )
        control = by_round(1, 0)
        good = TAIL_SAME[0] <= control[1] <= TAIL_SAME[1]
        report.say("", f"Control, the floor's p99.9 by round ÷ its own: {spread(control, 2)}" + ("" if good else ": **unmeasurable here**"))
        report.note("tail", by_round(4, 0), good)
        report.note("tail-logger", by_round(3, 2), good)
        service_time(report, load, run(Floor("epoll", size, timed=True, name="floor (epoll)")), servers[4:], rounds)
        latency_against_rate(report, load, [servers[0], servers[4]], max(3, arguments.pairs // 5))
    report.write()


def service_time(report, load, floor, splitds, rounds):
    """By the servers' own clocks, in turns. The floor server does next to nothing but send, so its
    tail is what halts of the machine make of that: requests that come meanwhile wait for one another."""
    report.say("", "### Service time inside the server, logger as it comes", "")
    report.say(
        "From when the server's wait returned to when the answer was handed to the kernel, in microseconds, by round of 1 s; "
        "rounds in which the generator, which has a CPU of its own, was late by more than "
        f"{STEADY_US} µs at p99.9 are left out. splitd's are upper edges of its histogram's buckets. By epoll an answer is "
        "handed over when the kernel has sent it, by io_uring when it is told to.",
        "",
    )
    report.head("server", "p50", "p99", "p99.9", "rounds")
    taken = {server.name: [] for server in (floor, *splitds)}
    for _ in range(rounds):
        for server in (floor, *splitds, *reversed(splitds), floor):
            late = []
            quantiles = server.service(lambda: late.append(load.round(server).result["lateness"]["p99.9"] / 1000))
            if late[0] <= STEADY_US:
                taken[server.name].append(quantiles)
    for server in (floor, *splitds):
        steady = taken[server.name]
        cells = [spread(quartiles([round[place] for round in steady]), 1) for place in range(3)] if steady else ["**unmeasurable here**"] * 3
        report.row(server.name, *cells, f"{len(steady)} of {2 * rounds}")
    shipped = taken[splitds[-1].name]
    if shipped:
        report.note("service", quartiles([round[2] for round in shipped]), len(shipped) >= rounds // 2)


def latency_against_rate(report, load, servers, rounds):
    rates = [1000, 2000, 5000, 10_000, 20_000, 40_000, 60_000, 80_000]
    report.say("", "### Against rate", "")
    report.head("requests/s", *(f"{server.name}: p50 · p99 · p99.9" for server in servers), "generator late by p99.9")
    series = {(server.name, name): [] for server in servers for name in ("p50", "p99.9")}
    for rate in rates:
        taken = in_turns(servers, load.but(rate=rate, measure_ms=500), rounds)
        cells, lateness = [], []
        for server in servers:
            tail = Tail(taken[server.name], "latency")
            cells.append(" · ".join(microseconds(tail.at(quantile)) for quantile in (0.5, 0.99, 0.999)))
            series[server.name, "p50"].append((rate, tail.at(0.5) / 1000))
            series[server.name, "p99.9"].append((rate, tail.at(0.999) / 1000))
            lateness.append(microseconds(Tail(taken[server.name], "lateness").at(0.999)))
        report.row(f"{rate:,}", *cells, " · ".join(lateness))
    named = [(f"{name.split(',')[0]} {which}" + ("*" if "floor" in name else ""), points) for (name, which), points in series.items()]
    plot.lines(
        os.path.join(RESULTS, "latency.svg"),
        "Latency against rate, open loop, one core",
        "requests/s",
        "µs from when a request was due",
        named,
        log_y=True,
    )
    report.say("", "![latency against rate](latency.svg)")


# ── Deciding ───────────────────────────────────────────────────────────────


def in_process(program, *arguments):
    """JSON lines of a program that measures both sides by itself."""
    run = subprocess.run([binary(program), "--cpu", str(SERVER_CPU), *arguments], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{program}: {run.stderr}")
    return [json.loads(line) for line in run.stdout.splitlines()]


def by_plan(lines):
    plans = {}
    for line in lines:
        plans.setdefault(line["plan"], {})[line["name"]] = line
    return plans.values()


def ratios(slow, fast):
    return quartiles([a / b for a, b in zip(slow["ns"], fast["ns"])])


def decision(arguments):
    report = Report(
        "decision",
        "One decision, and one scan",
        "Attributes already parsed; names already looked up. Both sides in turns within one process on one CPU. Unleash has no "
        "layers: see benches/peers/src/bin/decision.rs for how near the same work it does.",
    )
    lines = in_process("decision", "--sizes", "typical", "--rounds", str(arguments.pairs))
    report.head("engine", "µs a decision", "assignments a request")
    for plan in by_plan(lines):
        for line in plan.values():
            report.row(line["name"], spread([ns / 1000 for ns in quartiles(line["ns"])]), line["assigned"])
        again = ratios(plan["splitd again"], plan["splitd"])
        report.say("", f"Control, splitd again ÷ splitd: {spread(again)}" + ("" if SAME[0] <= again[1] <= SAME[1] else ": **unmeasurable here**"))
        report.note("decision", [ns / 1000 for ns in quartiles(plan["splitd"]["ns"])])
        report.note("unleash", ratios(plan["unleash"], plan["splitd"]), SAME[0] <= again[1] <= SAME[1])
        report.say("", f"unleash ÷ splitd: {spread(ratios(plan['unleash'], plan['splitd']), 1)} (goal 50, must 25)")
    report.say("", "Scanning a `typical` body into slots, each crate without a tree and with borrowed strings:", "")
    scans = in_process("scan")
    report.head("scanner", "ns a body", "÷ splitd")
    for line in scans:
        report.row(line["name"], spread(quartiles(line["ns"]), 0), spread(ratios(line, scans[0]), 2))
        if line["name"] == "sonic-rs":
            report.note("scan", ratios(line, scans[0]))
    report.say("", "A worker's own work, without sockets, every exposure in a ring:", "")
    report.head("part", "ns")
    keys = {"POST": ("request", 1000), "exposure": ("exposure", 1)}
    for line in in_process("parts"):
        report.row(line["name"], spread(quartiles(line["ns"]), 0))
        if line["name"] in keys:
            key, scale = keys[line["name"]]
            report.note(key, [ns / scale for ns in quartiles(line["ns"])])
    report.write()


def experiments(arguments):
    report = Report(
        "experiments",
        "Cost against experiments",
        "One decision in microseconds, attributes already parsed, over plans generated in the manner of `typical` (8 layers "
        "for 10 experiments). Linear in layers, because each is hashed; `cargo bench --bench engine` shows the rest.",
    )
    lines = in_process("decision", "--sizes", "10,30,100,300,1000,3000,10000", "--rounds", str(max(5, arguments.pairs // 3)))
    report.head("experiments", "layers", "plan KiB", "splitd µs", "ns a layer", "unleash µs", "unleash ÷ splitd")
    series = {"splitd": [], "unleash": []}
    for plan in by_plan(lines):
        own, other = plan["splitd"], plan["unleash"]
        for name, line in (("splitd", own), ("unleash", other)):
            series[name].append((line["experiments"], statistics.median(line["ns"]) / 1000))
        report.row(
            f"{own['experiments']:,}",
            f"{own['layers']:,}",
            f"{own['plan_bytes'] / 1024:,.0f}",
            spread([ns / 1000 for ns in quartiles(own["ns"])], 2),
            f"{statistics.median(own['ns']) / own['layers']:.1f}",
            spread([ns / 1000 for ns in quartiles(other["ns"])], 1),
            spread(ratios(other, own), 1),
        )
        if f"decision-{own['experiments']}" in budgets.KEYS:
            report.note(f"decision-{own['experiments']}", [ns / 1000 for ns in quartiles(own["ns"])])
    plot.lines(
        os.path.join(RESULTS, "experiments.svg"),
        "One decision against experiments",
        "experiments",
        "µs a decision",
        list(series.items()),
        log_y=True,
    )
    report.say("", "![cost against experiments](experiments.svg)")
    report.write()


# ── The daemon ─────────────────────────────────────────────────────────────


def start(arguments):
    report = Report(
        "start",
        "Start to first answer",
        "From the exec of `splitd serve` to the first answered decision: the file read, checked and compiled in a process of its "
        "own, processes forked, rings of 16 MiB touched and locked. The release build, plans in turns; a poll each 0.5 ms.",
    )
    with tempfile.TemporaryDirectory() as directory:
        plans = {"100": EXPERIMENTS}
        for size in (1000, 10_000):
            plans[f"{size:,}"] = path = os.path.join(directory, f"{size}.json")
            subprocess.run([binary("decision"), "--write", path, "--sizes", str(size)], check=True)
        taken = daemon.start(max(10, arguments.pairs), plans)
    report.head("experiments", "the log begins", "plan compiled", "workers ready", "first answer, ms", "goal")
    for name, values in taken.items():
        *milestones, answered = values
        times = [f"{median:.0f}" for _, median, _ in milestones]
        report.row(name, *times, spread(answered, 0), "50 (must 200)" if name == "100" else "")
    report.note("start", taken["100"][-1])
    report.write()


def memory(arguments):
    report = Report(
        "memory",
        "Memory of a worker over ten million users",
        "Each user asks once by GET over 64 connections; the first million once before, to warm up. The worker's own bytes are "
        "pages that it alone has (smaps_rollup, private); the resident ones count ring, plan and program too.",
    )
    samples = daemon.memory(EXPERIMENTS)
    report.head("users", "own KiB", "resident KiB")
    for users, own, resident in samples:
        report.row(f"{users:,}", own // 1024, resident // 1024)
    growth = samples[-1][1] - samples[0][1]
    report.note("memory", [growth / 1024] * 3)
    report.say("", f"Growth of its own over {samples[-1][0]:,} users: {growth} bytes.")
    report.write()


def logger(arguments):
    report = Report(
        "logger",
        "The logger, ring to file",
        "A second's exposures of `typical` wait in the ring; the logger, on a CPU of its own, takes them out and writes and syncs "
        "them to files. Exposures a second of its CPU time, and of time that passed.",
    )
    taken = daemon.logger(EXPERIMENTS, BODIES, max(8, arguments.pairs // 2))
    report.head("a second of", "exposures")
    for what, values in taken.items():
        report.row(what, spread(values, 0))
    report.note("logger", taken["CPU time"])
    report.write()


COMMANDS = {
    "throughput": throughput,
    "latency": latency,
    "connections": connections,
    "experiments": experiments,
    "decision": decision,
    "start": start,
    "logger": logger,
    "memory": memory,
}


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    parser.add_argument("command", nargs="?", default="throughput", choices=[*COMMANDS, "all", "budgets", "readme"])
    parser.add_argument("--pairs", type=int, default=16, help="pairs of rounds (default 16; fewer than 15 are for trying out)")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--load-io", choices=["uring", "epoll"], default="uring", help="how the generator itself works")
    arguments = parser.parse_args()
    if arguments.command == "readme":
        return budgets.into_readme()
    if arguments.command == "budgets":
        return print("\n".join(budgets.table()))
    if os.cpu_count() < 2:
        sys.exit("needs 2 CPUs: one for the server, one for the generator")
    os.makedirs(RESULTS, exist_ok=True)
    for name, command in COMMANDS.items():
        if arguments.command in (name, "all"):
            command(arguments)
    print("\n".join(budgets.table()))


if __name__ == "__main__":
    main()
