"""Measures a run from within Locust, and writes what was measured as JSON.

With `--figures FILE` the measured window opens when every user is logged in, and closes after
`--figures-seconds`; then the run ends. Log-ins hash a password each, which is meant to be slow,
so they are counted apart from the window. Everything is taken from Locust's own statistics.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent
import locust
import locust.runners
import locust.stats
import psutil
from locust import events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

LOGIN = "/api/auth"
LOGIN_DEADLINE_SECONDS = 300
# A look at every process takes some milliseconds, in which Locust answers nobody.
CPU_INTERVAL_SECONDS = 5
# How often the workers of --processes report; Locust's own 3 seconds would blur every second
# and both ends of the window.
REPORT_INTERVAL_SECONDS = 0.2

# What the workload wants to be known of it; it is written among the figures.
settings: dict[str, float] = {}

log = logging.getLogger(__name__)
keep_milliseconds: Callable[[float], float] = locust.stats.bucket_response_time


def keep_tenths(milliseconds: float) -> float:
    """Locust keeps whole milliseconds, which is coarse for answers that take one or two."""
    return round(milliseconds, 1) if milliseconds < 100 else keep_milliseconds(milliseconds)


@dataclass(frozen=True)
class Counts:
    """Requests, and how many of them took how many milliseconds."""

    requests: int
    failures: int
    times: Counter[float]

    def __sub__(self, earlier: "Counts") -> "Counts":
        return Counts(
            self.requests - earlier.requests,
            self.failures - earlier.failures,
            self.times - earlier.times,
        )

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.requests + other.requests,
            self.failures + other.failures,
            self.times + other.times,
        )

    def percentile(self, share: float) -> float | None:
        """The time within which this share of all requests was over, by nearest rank."""
        rank = share * self.times.total()
        seen = 0
        for milliseconds in sorted(self.times):
            seen += self.times[milliseconds]
            if seen >= rank:
                return milliseconds
        return None


NOTHING = Counts(0, 0, Counter())


def total(counts: Iterable[Counts]) -> Counts:
    return sum(counts, NOTHING)


class Cpu:
    """The processor time, in seconds, that the parties of the run have used so far."""

    def __init__(self, shop_pid: int | None) -> None:
        self.locust = psutil.Process()
        self.shop = psutil.Process(shop_pid) if shop_pid else None

    def used(self) -> dict[str, float]:
        machine = psutil.cpu_times()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        # What a guest machine runs is in `user` already.
        guests = getattr(machine, "guest", 0.0) + getattr(machine, "guest_nice", 0.0)
        used = {"locust": own_time(self.locust) + children_time(self.locust)}
        if self.shop:
            # Below it are replicas, if there are any, and the private PostgreSQL.
            replicas = children_time(self.shop, self.shop.name())
            used["merch-store"] = own_time(self.shop) + replicas
            used["postgres"] = children_time(self.shop) - replicas
        used["everything else"] = sum(machine) - idle - guests - sum(used.values())
        return used


def own_time(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def children_time(process: psutil.Process, name: str | None = None) -> float:
    """Of all processes below this one, or of those of one name; those that ended are in their
    parents' account."""
    seconds = 0.0
    for child in process.children(recursive=True):
        try:
            if name and child.name() != name:
                continue
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


class Recorder:
    """Takes the figures of one run."""

    def __init__(self, environment: Environment) -> None:
        options = environment.parsed_options
        self.environment = environment
        self.file = Path(options.figures)
        self.seconds: int = options.figures_seconds
        self.cpu = Cpu(options.shop_pid)
        self.figures: dict[str, Any] = {}

    def start(self, **_: Any) -> None:
        gevent.spawn(self.record)

    def record(self) -> None:
        try:
            if self.wait_for_logins():
                self.measure()
        except psutil.Error as error:
            log.error("cannot look at the shop's processes: %s", error)
        if not self.figures:
            self.environment.process_exit_code = 1
        self.environment.runner.quit()

    def wait_for_logins(self) -> bool:
        deadline = time.monotonic() + LOGIN_DEADLINE_SECONDS
        while time.monotonic() < deadline:
            logins = self.look().get(LOGIN, NOTHING)
            if logins.requests - logins.failures >= self.environment.runner.user_count:
                return True
            gevent.sleep(0.1)
        log.error("not every user could log in within %d seconds", LOGIN_DEADLINE_SECONDS)
        return False

    def measure(self) -> None:
        log.info("Every user is logged in; measuring for %d seconds", self.seconds)
        started_at = datetime.now(UTC)
        start = time.monotonic()
        first = last = self.look()
        first_cpu = last_cpu = self.cpu.used()
        last_time = last_cpu_time = start
        series = []
        cpu_series = []
        for second in range(1, self.seconds + 1):
            gevent.sleep(max(0.0, start + second - time.monotonic()))
            now = time.monotonic()
            counts = self.look()
            step = total(counts.values()) - total(last.values())
            series.append(
                [
                    second,
                    round(step.requests / (now - last_time), 1),
                    step.failures,
                    *(step.percentile(share) for share in (0.5, 0.95, 0.99)),
                ]
            )
            last, last_time = counts, now
            if second % CPU_INTERVAL_SECONDS == 0 or second == self.seconds:
                cpu = self.cpu.used()
                cpu_series.append([second, *cores(last_cpu, cpu, now - last_cpu_time).values()])
                last_cpu, last_cpu_time = cpu, now
        elapsed = last_time - start
        routes = {name: counts - first.get(name, NOTHING) for name, counts in last.items()}
        del routes[LOGIN]
        self.figures = {
            "when": started_at.isoformat(timespec="minutes"),
            "machine": {
                "cores": psutil.cpu_count(),
                "memory_gib": round(psutil.virtual_memory().total / 2**30),
            },
            "settings": {
                "locust": locust.__version__,
                "processes": self.processes(),
                "users": self.environment.runner.user_count,
                "seconds": round(elapsed, 1),
                **settings,
            },
            "logins": summary(LOGIN, first[LOGIN], None),
            "routes": [summary(name, counts, elapsed) for name, counts in sorted(routes.items())],
            "total": summary("all", total(routes.values()), elapsed),
            "cpu_cores": cores(first_cpu, last_cpu, last_cpu_time - start),
            "series_columns": [
                "second",
                "requests_per_s",
                "failures",
                "p50",
                "p95",
                "p99",
            ],
            "series": series,
            "cpu_series_columns": ["second", *last_cpu],
            "cpu_series": cpu_series,
        }

    def look(self) -> dict[str, Counts]:
        """What Locust has counted so far, a route."""
        return {
            name: Counts(entry.num_requests, entry.num_failures, Counter(entry.response_times))
            for (name, _), entry in self.environment.stats.entries.items()
        }

    def processes(self) -> int:
        runner = self.environment.runner
        return len(runner.clients) if isinstance(runner, MasterRunner) else 1

    def write(self, **_: Any) -> None:
        """When all users have stopped: with what was answered to them in the whole run, before
        and after the window too, so that it can be compared with the shop's books."""
        if not self.figures:
            return
        answered = {name: it.requests - it.failures for name, it in self.look().items()}
        self.figures["acknowledged"] = {
            "purchases": answered.get("/api/buy/[item]", 0),
            "transfers": answered.get("/api/sendCoin", 0),
        }
        self.figures["errors"] = [
            {"route": error.name, "error": str(error.error), "count": error.occurrences}
            for error in self.environment.stats.errors.values()
        ]
        self.file.write_text(to_json(self.figures))


def summary(route: str, counts: Counts, seconds: float | None) -> dict[str, Any]:
    return {
        "route": route,
        "requests": counts.requests,
        "failures": counts.failures,
        "requests_per_s": round(counts.requests / seconds, 1) if seconds else None,
        "p50": counts.percentile(0.5),
        "p95": counts.percentile(0.95),
        "p99": counts.percentile(0.99),
        "p999": counts.percentile(0.999),
        "max": max(counts.times, default=None),
    }


def cores(earlier: dict[str, float], later: dict[str, float], seconds: float) -> dict[str, float]:
    """How many processor cores each party kept busy."""
    # The kernel's clocks tick 100 times a second, so that a difference can be just below zero.
    return {party: round(max(0.0, later[party] - earlier[party]) / seconds, 2) for party in later}


def to_json(figures: dict[str, Any]) -> str:
    """With a line for each figure and each row, so that two runs can be compared line by line."""
    lines = []
    for key, value in figures.items():
        text = json.dumps(value)
        if isinstance(value, list) and value and not isinstance(value[0], str):
            text = "[\n" + ",\n".join(f"    {json.dumps(row)}" for row in value) + "\n  ]"
        lines.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    for name, kind, default, description in (
        (
            "--figures",
            str,
            None,
            "Measure, write what was measured to this file, and quit",
        ),
        ("--figures-seconds", int, 120, "How long to measure (default: 120)"),
        (
            "--shop-pid",
            int,
            None,
            "The shop's process, to measure its processor time too",
        ),
    ):
        parser.add_argument(
            name, type=kind, default=default, help=description, include_in_web_ui=False
        )


@events.init.add_listener
def start_recorder(environment: Environment, runner: Any, **_: Any) -> None:
    if not environment.parsed_options.figures:
        return
    locust.stats.bucket_response_time = keep_tenths
    locust.runners.WORKER_REPORT_INTERVAL = REPORT_INTERVAL_SECONDS
    if isinstance(runner, WorkerRunner):
        return
    recorder = Recorder(environment)
    environment.events.spawning_complete.add_listener(recorder.start)
    environment.events.quit.add_listener(recorder.write)
