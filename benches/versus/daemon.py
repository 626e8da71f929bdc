"""What the daemon as a whole costs: its start, and its memory over ten million
users. Nobody to compare with, so these are absolute figures with their spread."""

import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from rounds import Load, quartiles
from servers import LOAD_CPU, ROOT, SERVER_CPU, Splitd, free_port

POLL_SECONDS = 0.0005
USERS = 10_000_000
# A sample of memory each so many users.
SAMPLES = 10


def first_answer_ms(experiments):
    """From the exec to the first answered decision."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        port, bulk, admin = free_port(), free_port(), free_port()
        settings = {
            "state_dir": f"{directory}/state",
            "runtime_dir": f"{directory}/run",
            "pool.assign.listen": f"127.0.0.1:{port}",
            "pool.assign.cpus": SERVER_CPU,
            "pool.bulk.listen": f"127.0.0.1:{bulk}",
            "pool.admin.listen": f"127.0.0.1:{admin}",
        }
        sets = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        program = os.path.join(ROOT, "target/release/splitd")
        os.sched_setaffinity(0, {LOAD_CPU})
        began = time.monotonic()
        child = subprocess.Popen(
            [program, "serve", "--experiments", os.path.join(ROOT, experiments), *sets],
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, range(os.cpu_count())),
        )
        try:
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/assign?user_id=1", timeout=5) as answer:
                        answer.read()
                    return (time.monotonic() - began) * 1000
                except (urllib.error.URLError, ConnectionError):
                    if time.monotonic() - began > 30 or child.poll() is not None:
                        raise
                    time.sleep(POLL_SECONDS)
        finally:
            child.terminate()
            child.wait(60)
            os.sched_setaffinity(0, range(os.cpu_count()))


def start(rounds, plans):
    """Quartiles of milliseconds by plan, in turns."""
    taken = {name: [] for name in plans}
    for _ in range(rounds):
        for name, path in plans.items():
            taken[name].append(first_answer_ms(path))
    return {name: quartiles(values) for name, values in taken.items()}


def own_memory(pid):
    """Bytes that the process alone has touched: no ring, no plan, no page of the program."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        sizes = dict(line.split(":", 1) for line in file if ":" in line)
    return sum(int(sizes[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")) * 1024


def resident(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(experiments):
    """(users so far, the worker's own bytes, its resident bytes), each user asked for once."""
    part = USERS // SAMPLES
    with Splitd(experiments, logger="same") as splitd, tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        path = os.path.join(directory, "targets")
        samples = []
        for number in range(SAMPLES + 1):
            # The first part but warms up; its users come again.
            first = max(0, number - 1) * part
            with open(path, "w") as file:
                file.writelines(f"/v1/assign?user_id={user}&platform=ios&age=34\n" for user in range(first, first + part))
            load = Load({"targets": path, "answers": part}, io="epoll", warm_ms=0, measure_ms=600_000)
            load.once(splitd)
            samples.append((number * part, own_memory(splitd.pid), resident(splitd.pid)))
        return samples
