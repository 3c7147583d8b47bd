"""One client that asks for as much as it can, while a gateway holds it to a bucket.

It logs in, asks for its coins over and over for ten seconds, and adds to the figures of
`--figures-into` what it was answered with, and between which bounds the answers of 200 must be.
Its bucket is full at first: nobody else logs in as this user, and log-ins count by address.
"""

import json
import time
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, constant, events, task
from locust.env import Environment

import figures
import locustfile

SECONDS = 10
STEP_SECONDS = 0.5

# When each request was sent, when its answer was there, and what it was.
answers: list[tuple[float, float, int]] = []


class Greedy(FastHttpUser):
    """One request after the other, without a pause."""

    wait_time = constant(0)

    def on_start(self) -> None:
        # Beyond the users who worked before: their buckets were used.
        credentials = {"username": "greedy", "password": locustfile.PASSWORD}
        answer = self.client.post("/api/auth", json=credentials)
        self.headers = {"Authorization": f"Bearer {answer.json()['token']}"}

    @task
    def info(self) -> None:
        sent = time.monotonic()
        with self.client.get(
            "/api/info", headers=self.headers, catch_response=True
        ) as response:
            answers.append((sent, time.monotonic(), response.status_code))
            response.success()


def summary(capacity: int, rate: int) -> dict[str, Any]:
    """What came of it. The gateway decides between a request's sending and its answer, so a
    bucket that is asked all the time lets in what it held and what it gained between the first
    decision and the last one: at most from the first sending to the last answer, at least from
    the first answer to the last sending, but for the part of a token that is left."""
    statuses = [status for _, _, status in answers]
    start, end = answers[0][0], answers[-1][1]
    least = int(capacity + rate * (answers[-1][0] - answers[0][1])) - 1
    steps: list[list[float]] = []
    for _, there, status in answers:
        step = int((there - start) / STEP_SECONDS)
        while len(steps) <= step:
            steps.append([round(len(steps) * STEP_SECONDS, 1), 0, 0])
        steps[step][1 if status == 200 else 2] += 1
    return {
        "capacity": capacity,
        "rate_per_sec": rate,
        "seconds": round(end - start, 2),
        "requests": len(statuses),
        "answered": statuses.count(200),
        "too_many": statuses.count(429),
        "least": least,
        "most": int(capacity + rate * (end - start)),
        "step_seconds": STEP_SECONDS,
        "series_columns": ["second", "answered", "too_many"],
        "series": steps,
    }


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    parser.add_argument("--figures-into", help="Add what was measured to this file")
    parser.add_argument("--bucket-capacity", type=int, help="What a bucket holds")
    parser.add_argument("--bucket-rate", type=int, help="What it gains a second")


@events.init.add_listener
def start(environment: Environment, **_: Any) -> None:
    options = environment.parsed_options

    def run(**_: Any) -> None:
        gevent.sleep(SECONDS)
        environment.runner.quit()

    def write(**_: Any) -> None:
        file = Path(options.figures_into)
        measured = json.loads(file.read_text())
        measured["beyond"] = summary(options.bucket_capacity, options.bucket_rate)
        file.write_text(figures.to_json(measured))

    environment.events.spawning_complete.add_listener(lambda **_: gevent.spawn(run))
    environment.events.quit.add_listener(write)
