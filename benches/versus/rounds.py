"""Rounds in pairs: A B B A, so that what the machine does meanwhile hits both
alike. Ratios within a pair are the figures; absolute numbers belong to their
sitting alone."""

import json
import statistics
import subprocess
import sys

from servers import LOAD_CPU, binary

WARM_MS, MEASURE_MS = 150, 300
VOID_MAX = 10


class Load:
    """How the generator asks."""

    def __init__(self, requests, connections=64, depth=1, io="uring", rate=0, warm_ms=WARM_MS, measure_ms=MEASURE_MS):
        self.options = {
            "cpu": LOAD_CPU,
            "connections": connections,
            "depth": depth,
            "io": io,
            "rate": rate,
            "warm-ms": warm_ms,
            "measure-ms": measure_ms,
            **requests,
        }

    def but(self, **changes):
        load = Load({})
        load.options = {**self.options, **{name.replace("_", "-"): value for name, value in changes.items()}}
        return load

    def once(self, server):
        """One run against a server, without ceremony."""
        words = [word for name, value in self.options.items() for word in (f"--{name}", str(value))]
        command = [binary("load"), "--port", str(server.port), "--pid", str(server.pid), *words]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if run.returncode != 0:
            server.fail(f"met a generator that gave up: {run.stderr.splitlines()[:1]};")
        result = json.loads(run.stdout)
        if result["refused"]:
            server.fail(f"answered {result['refused']} requests with another status than 200;")
        return result

    def round(self, server):
        """One round; void ones are said and taken again."""
        for _ in range(VOID_MAX):
            server.before_round(fill=self.backlog)
            result = self.once(server)
            void = server.after_round()
            if void is None and result["answers"] > 0:
                return Round(result)
            print(f"void: {server.name}: {void or 'no answers'}", file=sys.stderr)
        server.fail(f"had {VOID_MAX} void rounds in a row;")

    def backlog(self, server):
        """As much as a logger needs a second or so for."""
        self.but(rate=0, warm_ms=1, measure_ms=1000, connections=64).once(server)


class Round:
    def __init__(self, result):
        self.result = result
        self.rate = result["answers"] / result["seconds"]
        self.server_ns = result["server_ns"] / result["answers"]
        self.load_ns = result["own_ns"] / result["answers"]
        self.server_share = result["server_ns"] / result["seconds"] / 1e9
        self.load_share = result["own_ns"] / result["seconds"] / 1e9
        self.bytes = result["bytes"] / result["answers"]


def quartiles(values):
    values = sorted(values)
    if len(values) == 1:
        return values * 3
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, median, third


class Pairs:
    """What pairs of rounds of `a` and `b` came to. A ratio over 1 is in favour of `a`."""

    def __init__(self, a, b, load, count, load_b=None):
        self.a, self.b = a, b
        load_b = load_b or load
        load.round(a), load_b.round(b)  # to warm up
        self.rounds = []
        for _ in range((count + 1) // 2):
            a1, b1, b2, a2 = load.round(a), load_b.round(b), load_b.round(b), load.round(a)
            self.rounds += [(a1, b1), (a2, b2)]

    def of(self, side, value):
        return [getattr(pair[side], value) for pair in self.rounds]

    def rate(self, side):
        return statistics.median(self.of(side, "rate"))

    def server_ns(self, side):
        return statistics.median(self.of(side, "server_ns"))

    def rate_ratio(self):
        """First quartile, median, third."""
        return quartiles([a.rate / b.rate for a, b in self.rounds])

    def best_ratio(self):
        return max(self.of(0, "rate")) / max(self.of(1, "rate"))

    def cost_ratio(self):
        """Of CPU time a request: b's ÷ a's."""
        return quartiles([b.server_ns / a.server_ns for a, b in self.rounds])

    def limited_by_load(self):
        """Whether a server had time to spare, so that requests/s say less than they seem to."""
        return [side for side in (0, 1) if statistics.median(self.of(side, "server_share")) < 0.97]
