"""What the daemon as a whole costs: its start, and its memory over ten million
users. Nobody to compare with, so these are absolute figures with their spread."""

import datetime
import os
import re
import signal
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


# What the log says on the way, in its order.
MILESTONES = ("start", "experiments_taken", "ready")


def first_answer_ms(experiments):
    """Milliseconds from the exec to each milestone of the log, and to the first answered decision."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        port, bulk, admin = free_port(), free_port(), free_port()
        settings = {
            "state_dir": f"{directory}/state",
            "runtime_dir": f"{directory}/run",
            "pool.assign.listen": f"127.0.0.1:{port}",
            "pool.assign.cpus": SERVER_CPU,
            "pool.bulk.listen": f"127.0.0.1:{bulk}",
            "pool.admin.listen": f"127.0.0.1:{admin}",
            "drain_idle": "0s",
        }
        sets = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        program = os.path.join(ROOT, "target/release/splitd")
        os.sched_setaffinity(0, {LOAD_CPU})
        log = open(f"{directory}/log", "w+")
        began, began_at = time.monotonic(), time.time()
        child = subprocess.Popen(
            [program, "serve", "--experiments", os.path.join(ROOT, experiments), *sets],
            stderr=log,
            preexec_fn=lambda: os.sched_setaffinity(0, range(os.cpu_count())),
        )
        try:
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/assign?user_id=1", timeout=5) as answer:
                        answer.read()
                    answered = (time.monotonic() - began) * 1000
                    log.seek(0)
                    times = {event: at for at, event in re.findall(r"^(\S+) \w+ pid=\d+ event=(\w+)", log.read(), re.MULTILINE)}
                    since = lambda text: 1000 * (datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() - began_at)
                    return [*(since(times[event]) if event in times else answered for event in MILESTONES), answered]
                except (urllib.error.URLError, ConnectionError):
                    if time.monotonic() - began > 30 or child.poll() is not None:
                        raise
                    time.sleep(POLL_SECONDS)
        finally:
            child.terminate()
            child.wait(60)
            log.close()
            os.sched_setaffinity(0, range(os.cpu_count()))


def start(rounds, plans):
    """Quartiles of milliseconds by plan, in turns: of each milestone, and of the first answer."""
    taken = {name: [] for name in plans}
    for _ in range(rounds):
        for name, path in plans.items():
            taken[name].append(first_answer_ms(path))
    return {name: [quartiles(times) for times in zip(*values)] for name, values in taken.items()}


def cpu_ns(pid):
    """CPU time of all threads of a process so far."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as file:
            total += int(file.read().split()[0])
    return total


def logger(experiments, requests, rounds):
    """Quartiles of exposures a second of the logger's CPU time, and of time."""
    by_cpu, by_time = [], []
    with Splitd(experiments, logger="away") as splitd:
        for task in os.listdir(f"/proc/{splitd.logger}/task"):
            os.sched_setaffinity(int(task), {LOAD_CPU})
        load = Load(requests, warm_ms=1, measure_ms=1000)
        delivered = lambda: splitd.metric("splitd_exposures_delivered_total")
        waiting = lambda: splitd.metric("splitd_exposures_in_rings")
        for _ in range(rounds):
            splitd.hold_logger(True)
            load.once(splitd)
            before, cpu, begin = delivered(), cpu_ns(splitd.logger), time.monotonic()
            splitd.hold_logger(False)
            while splitd.rings()[1] > 0 and time.monotonic() - begin < 60:
                time.sleep(0.005)
            took, cpu = time.monotonic() - begin, cpu_ns(splitd.logger) - cpu
            while waiting() > 0 and time.monotonic() - begin < 60:
                time.sleep(0.05)
            count = delivered() - before
            by_cpu.append(count / cpu * 1e9)
            by_time.append(count / took)
    return {"CPU time": quartiles(by_cpu), "time": quartiles(by_time)}


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
