"""Employees of the shop at work: each logs in once, then asks for their coins, buys merch and
thanks colleagues, in equal parts.

The users are those of `merch-store seed`: user1 to userN, all with one password. Settings are
read from the environment, so that they work with and without Locust's web page:

MERCH_USERS      how many users are seeded (100000)
MERCH_PASSWORD   the password of all of them (password)
MERCH_USER_RATE  requests a second of each simulated user (5)
"""

import os
import random

import gevent
from locust import FastHttpUser, constant_throughput, task

import figures

SEEDED_USERS = int(os.environ.get("MERCH_USERS", "100000"))
PASSWORD = os.environ.get("MERCH_PASSWORD", "password")
USER_RATE = float(os.environ.get("MERCH_USER_RATE", "5"))
figures.settings = {"seeded_users": SEEDED_USERS, "user_rate": USER_RATE}

ITEMS = (
    "t-shirt",
    "cup",
    "book",
    "pen",
    "powerbank",
    "hoody",
    "umbrella",
    "socks",
    "wallet",
    "pink-hoody",
)

LOGIN_RETRY_SECONDS = 1.0


class Employee(FastHttpUser):
    """One client with one connection, which it keeps."""

    host = "http://localhost:8080"
    wait_time = constant_throughput(USER_RATE)
    # The shop gives up on a request after ten seconds; a client that waits longer than the
    # shop does counts the shop's own answer.
    network_timeout = 15.0
    connection_timeout = 15.0

    number: int
    headers: dict[str, str]

    def on_start(self) -> None:
        self.number = random.randint(1, SEEDED_USERS)
        self.headers = {}
        credentials = {"username": f"user{self.number}", "password": PASSWORD}
        while not self.headers:
            with self.client.post(
                "/api/auth", json=credentials, name="/api/auth", catch_response=True
            ) as response:
                if accept_only_200(response):
                    self.headers = {"Authorization": f"Bearer {response.json()['token']}"}
            if not self.headers:
                gevent.sleep(LOGIN_RETRY_SECONDS)
        # Users come in batches. Without this their requests would, too, for the whole run.
        gevent.sleep(random.uniform(0, 1 / USER_RATE))

    @task
    def info(self) -> None:
        with self.client.get(
            "/api/info", headers=self.headers, name="/api/info", catch_response=True
        ) as response:
            accept_only_200(response)

    @task
    def buy(self) -> None:
        with self.client.get(
            f"/api/buy/{random.choice(ITEMS)}",
            headers=self.headers,
            name="/api/buy/[item]",
            catch_response=True,
        ) as response:
            accept_only_200(response)

    @task
    def send_coin(self) -> None:
        with self.client.post(
            "/api/sendCoin",
            json={"toUser": f"user{self.somebody_else()}", "amount": 1},
            headers=self.headers,
            name="/api/sendCoin",
            catch_response=True,
        ) as response:
            accept_only_200(response)

    def somebody_else(self) -> int:
        other = random.randint(1, SEEDED_USERS - 1)
        return other if other < self.number else other + 1


def accept_only_200(response) -> bool:
    """Marks any other answer, or none, as a failure. (Locust alone would let 3xx pass.)"""
    if response.status_code == 200:
        return True
    why = response.text or response.error
    response.failure(f"{response.status_code}: {str(why)[:200]}")
    return False
