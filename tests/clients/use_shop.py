"""Uses the client that openapi-python-client made of the shop's document: use_shop.py URL."""

import sys

from shop import AuthenticatedClient, Client
from shop.api.shop import buy, get_history, get_history_summary, get_info, list_merch, login, send_coin
from shop.models import (
    AuthRequest,
    AuthResponse,
    ErrorCode,
    ErrorResponse,
    GrantEntry,
    PurchaseEntry,
    ReceivedEntry,
    SendCoinRequest,
    SentEntry,
)


def main(url):
    anybody = Client(url, raise_on_unexpected_status=True)

    def logs_in(name, password="a secret"):
        return login.sync_detailed(client=anybody, body=AuthRequest(username=name, password=password))

    tokens = {name: logs_in(name).parsed.token for name in ("python-alice", "python-bob")}
    alice, bob = (
        AuthenticatedClient(url, token=token, raise_on_unexpected_status=True)
        for token in tokens.values()
    )
    assert isinstance(logs_in("python-alice").parsed, AuthResponse)
    wrong = logs_in("python-alice", "another secret")
    assert wrong.status_code == 401 and wrong.parsed.code == ErrorCode.WRONG_PASSWORD, wrong

    prices = {item.type_: item.price for item in list_merch.sync(client=anybody).items}
    assert prices["cup"] == 20, prices

    for attempt in range(2):
        bought = buy.sync_detailed("cup", client=alice, idempotency_key="one cup")
        assert bought.status_code == 200, bought
        replayed = bought.headers.get("Idempotency-Replayed")
        assert replayed == ("true" if attempt else None), replayed
    for refused, code in [
        (buy.sync_detailed("unicorn", client=alice), ErrorCode.UNKNOWN_ITEM),
        (send(alice, "python-bob", 5000), ErrorCode.INSUFFICIENT_COINS),
        (send(alice, "python-nobody", 1), ErrorCode.UNKNOWN_RECIPIENT),
    ]:
        assert refused.status_code == 400 and isinstance(refused.parsed, ErrorResponse), refused
        assert refused.parsed.code == code and refused.parsed.errors, refused.parsed
    assert send(alice, "python-bob", 30).status_code == 200
    assert send(bob, "python-alice", 10).status_code == 200

    info = get_info.sync(client=alice)
    assert info.coins == 1000 - 20 - 30 + 10, info
    assert [(it.type_, it.quantity) for it in info.inventory] == [("cup", 1)], info
    assert info.coin_history.sent[0].to_user == "python-bob", info

    movements, cursor = [], None
    while True:
        page = get_history.sync(client=alice, limit=1, **({"cursor": cursor} if cursor else {}))
        movements += page.movements
        cursor = page.next_cursor
        if cursor is None:
            break
    kinds = [type(movement) for movement in movements]
    assert kinds == [ReceivedEntry, SentEntry, PurchaseEntry, GrantEntry], movements
    assert movements[2].item == "cup" and movements[3].amount == 1000, movements

    summary = get_history_summary.sync(client=alice)
    assert summary.sent[0].amount == 30 and summary.received[0].from_user == "python-bob", summary

    nobody = AuthenticatedClient(url, token="nothing", raise_on_unexpected_status=True)
    assert get_info.sync_detailed(client=nobody).status_code == 401


def send(client, name, amount):
    return send_coin.sync_detailed(client=client, body=SendCoinRequest(to_user=name, amount=amount))


main(sys.argv[1])
