"""A splitting service as one would write it in Flask under bjoern: one process,
the experiments compiled at start to tables and closures, JSON in and out. It
gives splitd's answers (`--check` holds it to the golden ones) and records each
exposure with the fields that splitd's has, a line of JSON to a buffered file.

    flask_service.py EXPERIMENTS [PORT]
    flask_service.py EXPERIMENTS --check REQUESTS ANSWERS
"""

import json
import os
import socket
import sys
import tempfile
import time

import xxhash

OPERATORS = {
    "eq": lambda given, wanted: given == wanted,
    "in": lambda given, wanted: given in wanted,
    "lt": lambda given, wanted: given < wanted,
    "lte": lambda given, wanted: given <= wanted,
    "gt": lambda given, wanted: given > wanted,
    "gte": lambda given, wanted: given >= wanted,
    "starts_with": lambda given, wanted: given.startswith(wanted),
    "ends_with": lambda given, wanted: given.endswith(wanted),
    "contains_any": lambda given, wanted: not wanted.isdisjoint(given),
    "contains_all": lambda given, wanted: wanted.issubset(given),
}
TYPES = {"string": str, "number": (int, float), "bool": bool, "version": str, "string_list": list}


def version(text):
    parts = [int(part) for part in text.lstrip("vV").split(".")]
    return tuple(parts + [0] * (4 - len(parts)))


def compile_leaf(file, leaf):
    name, op, wanted = leaf["attr"], leaf["op"], leaf["value"]
    kind = file["attributes"][name]
    if op == "exists":
        return lambda given: (name in given) == wanted
    inverted = op in ("ne", "not_in")
    op = {"ne": "eq", "not_in": "in"}.get(op, op)
    if kind == "version":
        wanted = [version(value) for value in wanted] if isinstance(wanted, list) else version(wanted)
    if isinstance(wanted, list):
        wanted = frozenset(wanted)
    if op == "contains":
        test = lambda given, wanted: wanted in given  # of a text and of a list alike
    else:
        test = OPERATORS[op]

    def holds(given):
        value = given.get(name)
        return value is not None and test(value, wanted)

    return (lambda given: not holds(given)) if inverted else holds


def compile_condition(file, condition):
    if "segment" in condition:
        return compile_condition(file, file["segments"][condition["segment"]])
    if "not" in condition:
        inner = compile_condition(file, condition["not"])
        return lambda given: not inner(given)
    for word, gather in (("all", all), ("any", any)):
        if word in condition:
            parts = [compile_condition(file, part) for part in condition[word]]
            return lambda given: gather(part(given) for part in parts)
    return compile_leaf(file, condition)


class Splitter:
    def __init__(self, file):
        self.version = file["version"]
        self.kinds = file["attributes"]
        self.layers = []
        self.instance = int.from_bytes(os.urandom(8))
        self.recorded = 0
        self.exposures = tempfile.TemporaryFile("w", buffering=1 << 16)
        tables = {}
        for name, layer in file["layers"].items():
            table = [None] * layer.get("buckets", 10_000)
            tables[name] = table
            self.layers.append((layer["salt"] + ":", layer["unit"], table))
        for number, experiment in enumerate(file["experiments"]):
            segment = experiment.get("segment")
            if isinstance(segment, str):
                segment = file["segments"][segment]
            holds = compile_condition(file, segment) if segment else lambda given: True
            for group in experiment["groups"]:
                for first, count in group["blocks"]:
                    owner = (number, experiment, group["name"], holds, file["layers"][experiment["layer"]]["unit"])
                    tables[experiment["layer"]][first : first + count] = [owner] * count

    def assign(self, request):
        given = {}
        for name, value in request.get("attributes", {}).items():
            kind = self.kinds.get(name)
            if kind is not None and isinstance(value, TYPES[kind]):
                given[name] = version(value) if kind == "version" else value
        units = request["units"]
        chosen = []
        for salt, unit, table in self.layers:
            value = units.get(unit)
            if value:
                owner = table[xxhash.xxh3_64_intdigest(f"{salt}{value}".encode()) % len(table)]
                if owner is not None and owner[3](given):
                    chosen.append(owner)
        chosen.sort(key=lambda owner: owner[0])
        self.record(request, chosen)
        return {"version": self.version, "assignments": {owner[1]["name"]: owner[2] for owner in chosen}}

    def record(self, request, chosen):
        self.recorded += 1
        exposure = {
            "id": f"{self.instance:016x}{self.recorded:016x}",
            "time_us": time.time_ns() // 1000,
            "version": self.version,
            "units": request["units"],
            "assignments": [
                {
                    "experiment_id": experiment["id"],
                    "run_id": experiment["run_id"],
                    "experiment": experiment["name"],
                    "group": group,
                    "forced": False,
                    "unit": unit,
                }
                for _, experiment, group, _, unit in chosen
            ],
            "context": request.get("attributes", {}),
        }
        self.exposures.write(json.dumps(exposure, separators=(",", ":")) + "\n")


def serve(splitter, port):
    import bjoern
    from flask import Flask, Response, request

    app = Flask(__name__)

    @app.post("/v1/assign")
    def assign():
        answer = json.dumps(splitter.assign(request.get_json()), separators=(",", ":"))
        return Response(answer, mimetype="application/json")

    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    print("listening", listener.getsockname()[1], flush=True)
    bjoern.server_run(listener, app)


def check(splitter, requests, answers):
    with open(requests) as requests, open(answers) as answers:
        for number, (request, answer) in enumerate(zip(requests, answers), 1):
            if splitter.assign(json.loads(request)) != json.loads(answer):
                sys.exit(f"line {number}: another answer than the golden one")
    print("all answers are the golden ones")


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        splitter = Splitter(json.load(file))
    if sys.argv[2:3] == ["--check"]:
        check(splitter, *sys.argv[3:5])
    else:
        serve(splitter, int((sys.argv + ["0"])[2]))
