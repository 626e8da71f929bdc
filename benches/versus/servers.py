"""Servers under measurement: each pinned to one CPU, on a port of its own (two
on one SO_REUSEPORT port would share the load silently), with the process whose
CPU time counts."""

import glob
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SERVER_CPU, LOAD_CPU = 0, 1
START_SECONDS = 20


def binary(name):
    return os.path.join(ROOT, "target/peers/release", name)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def answer_size(port):
    """Bytes of one answer, head and body."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: splitd\r\n\r\n")
        answer = b""
        while True:
            answer += connection.recv(65536)
            head, end, body = answer.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            if end and length and len(body) >= int(length[1]):
                return len(answer)


class Server:
    """A child process that serves; `pid` is whose CPU time counts."""

    name = "?"

    def __init__(self, *arguments, cpu=SERVER_CPU):
        self.log = tempfile.TemporaryFile("w+")
        self.child = subprocess.Popen(
            arguments,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            preexec_fn=(lambda: os.sched_setaffinity(0, {cpu})) if cpu is not None else None,
        )
        self.pid = self.child.pid

    def listening(self):
        """The port that the child says."""
        line = self.child.stdout.readline()
        if not line.startswith("listening "):
            self.fail("did not start")
        return int(line.split()[1])

    def answers(self, port):
        """Waits until somebody accepts."""
        for _ in range(START_SECONDS * 20):
            if self.child.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return port
            except OSError:
                time.sleep(0.05)
        self.fail("does not accept")

    def fail(self, what):
        self.stop()
        self.log.seek(0)
        sys.exit(f"{self.name} {what}: {self.log.read()[-2000:]}")

    def before_round(self, **_):
        pass

    def after_round(self):
        """Why the round is void, if it is."""

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Floor(Server):
    def __init__(self, io, size, busy_ns=0, timed=False, name=None):
        self.name = name or f"floor ({io})"
        options = {"answer-size": size, "busy-ns": busy_ns, "timed": int(timed)}
        super().__init__(binary(f"floor_{io}"), *(word for name, value in options.items() for word in (f"--{name}", str(value))))
        self.port = self.listening()

    def service(self, round):
        """p50, p99 and p99.9 of its service times in a round, in microseconds, of one that is timed."""
        round()
        return [int(ns) / 1000 for ns in self.child.stdout.readline().split()[1:]]


def sized(make, size):
    """A server whose whole answer has `size` bytes: its head is measured first."""
    first = make(size)
    off = answer_size(first.port) - size
    first.stop()
    return make(size - off)


class Hyper(Server):
    name = "hyper"

    def __init__(self, body_size):
        super().__init__(binary("hyper"), "--body-size", str(body_size))
        self.port = self.listening()


class Nginx(Server):
    name = "nginx `return 200`"

    def __init__(self, body_size):
        self.directory = tempfile.mkdtemp(prefix="versus-nginx-")
        self.port = free_port()
        paths = "".join(
            f"{kind}_temp_path {self.directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        with open(f"{self.directory}/nginx.conf", "w") as file:
            file.write(
                f"daemon off; master_process off; pid {self.directory}/pid; error_log stderr error;\n"
                "events { worker_connections 4096; }\n"
                "http { access_log off; keepalive_requests 1000000000; client_body_buffer_size 16k;\n"
                f"{paths} default_type application/json;\n"
                f"server {{ listen 127.0.0.1:{self.port} backlog=4096;\n"
                f"location / {{ return 200 \"{'x' * body_size}\"; }} }} }}\n"
            )
        super().__init__("nginx", "-e", "stderr", "-c", f"{self.directory}/nginx.conf")
        self.answers(self.port)

    def stop(self):
        super().stop()
        shutil.rmtree(self.directory, ignore_errors=True)


class Flask(Server):
    name = "bjoern + Flask"

    def __init__(self, experiments):
        python = os.path.join(ROOT, "target/peers/venv/bin/python")
        super().__init__(python, "benches/peers/flask_service.py", experiments)
        self.port = self.listening()


# The words of a ring's header that are read here (src/exposure/ring.rs).
RING_MAGIC, RING_LAYOUT = b"splitdR\x01", 1
AT_TAIL, AT_REFUSED_FULL, AT_REFUSED_OVERSIZE, AT_STATE = 16, 18, 19, 32
RING_SIZE = "256MiB"


class Histogram:
    """Cumulative counts by upper edge, as Prometheus has them."""

    def __init__(self, counts):
        self.counts = counts
        self.count = int(counts.get(float("inf"), 0))

    def __sub__(self, before):
        """What came since `before`, whose edges may be fewer."""
        return Histogram({edge: count - before.up_to(edge) for edge, count in self.counts.items()})

    def up_to(self, edge):
        return max((count for other, count in self.counts.items() if other <= edge), default=0)

    def at(self, quantile):
        """The upper edge of the bucket that the quantile lies in, in seconds."""
        return min((edge for edge, count in self.counts.items() if count >= quantile * self.count), default=0)


class Splitd(Server):
    """`logger` says what the logger does while a round runs
    - `away`: it stands still and catches up between rounds, as if it had a CPU
      of its own that takes nothing from server or generator
    - `same`: it shares the server's CPU, niced
    - `busy`: the same, with a backlog of a second or so to work off
    """

    def __init__(self, experiments, io="epoll", logger="away", name=None):
        self.name = name or f"splitd ({io})"
        self.logger_mode = logger
        self.directory = tempfile.mkdtemp(prefix="versus-splitd-")
        # Rings belong on a tmpfs, as /run is: a disk's write-back would be measured too.
        self.runtime = tempfile.mkdtemp(prefix="versus-splitd-", dir="/dev/shm")
        self.port, bulk, self.admin = free_port(), free_port(), free_port()
        settings = {
            "state_dir": f"{self.directory}/state",
            "runtime_dir": self.runtime,
            "pool.assign.listen": f"127.0.0.1:{self.port}",
            "pool.assign.cpus": SERVER_CPU,
            "pool.assign.io": io,
            "pool.bulk.listen": f"127.0.0.1:{bulk}",
            "pool.admin.listen": f"127.0.0.1:{self.admin}",
            "logger.ring_size": RING_SIZE,
            "sink.size_max": "512MiB",
        }
        sets = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        program = os.path.join(ROOT, "target/release/splitd")
        super().__init__(program, "serve", "--experiments", experiments, *sets, cpu=None)
        self.wait_ready()
        self.pid = self.process("assign/0")
        self.logger = self.process("logger")
        self.refused = self.rings()[0]
        for task in os.listdir(f"/proc/{self.logger}/task"):
            os.sched_setaffinity(int(task), {SERVER_CPU})
        self.stopped = False

    def wait_ready(self):
        for _ in range(START_SECONDS * 20):
            if self.child.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=1):
                    return
            except OSError:
                time.sleep(0.05)
        self.fail("is not ready")

    def process(self, name):
        """The child of the master with this name."""
        with open(f"/proc/{self.child.pid}/task/{self.child.pid}/children") as file:
            children = file.read().split()
        for pid in children:
            with open(f"/proc/{pid}/comm") as file:
                if file.read().strip() == name:
                    return int(pid)
        self.fail(f"has no process `{name}`")

    def rings(self):
        """Exposures refused, and bytes that wait, over all rings."""
        refused = waiting = found = 0
        for path in glob.glob(f"{self.runtime}/**/*", recursive=True):
            if not os.path.isfile(path):
                continue
            with open(path, "rb") as file:
                words = struct.unpack("<8s63Q", file.read(512).ljust(512, b"\0"))
            if words[0] != RING_MAGIC:
                continue
            if words[1] != RING_LAYOUT:
                self.fail(f"has rings of layout {words[1]}, which this harness can't read")
            found += 1
            refused += words[AT_REFUSED_FULL] + words[AT_REFUSED_OVERSIZE]
            waiting += words[AT_TAIL] - (words[AT_STATE] & ~1)
        if not found:
            self.fail(f"has no ring in {self.runtime}")
        return refused, waiting

    def metrics(self):
        """(name, labels, value) of every sample of /metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                sample = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
                if sample:
                    yield sample[1], dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', sample[2] or "")), float(sample[3])

    def metric(self, name, **labels):
        """Summed over all samples with these labels."""
        return sum(value for found, has, value in self.metrics() if found == name and labels.items() <= has.items())

    def histogram(self, name, pool="assign"):
        """The pool's, over all routes."""
        counts = {}
        for found, labels, value in self.metrics():
            if found == f"{name}_bucket" and labels["pool"] == pool:
                edge = float(labels["le"].replace("+Inf", "inf"))
                counts[edge] = counts.get(edge, 0) + value
        return Histogram(counts)

    def service(self, round):
        """p50, p99 and p99.9 of the worker's service times in a round, in microseconds."""
        name = "splitd_request_service_seconds"
        before = self.histogram(name)
        round()
        service = self.histogram(name) - before
        return [1e6 * service.at(quantile) for quantile in (0.5, 0.99, 0.999)]

    def hold_logger(self, hold):
        if hold != self.stopped:
            os.kill(self.logger, signal.SIGSTOP if hold else signal.SIGCONT)
            self.stopped = hold

    def before_round(self, fill=None):
        """`fill` puts a backlog into the ring."""
        if self.logger_mode == "same":
            return
        self.hold_logger(True)
        if self.logger_mode == "busy":
            fill(self)
            self.hold_logger(False)

    def after_round(self):
        self.hold_logger(False)
        for _ in range(400):
            refused, waiting = self.rings()
            if waiting < 1 << 20:
                break
            time.sleep(0.02)
        else:
            return "the logger does not catch up"
        new, self.refused = refused - self.refused, refused
        return f"the ring refused {new} exposures" if new else None

    def stop(self):
        if self.child.poll() is None and hasattr(self, "stopped"):
            self.hold_logger(False)
        super().stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self.runtime, ignore_errors=True)


def splitd_has(io):
    """Whether splitd serves by `io` on this machine."""
    if io != "io_uring":
        return True
    try:
        with open("/proc/sys/kernel/io_uring_disabled") as file:
            return file.read().strip() == "0"
    except OSError:
        return True  # a kernel before 6.6 has no such switch
