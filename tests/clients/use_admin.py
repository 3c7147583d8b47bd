"""Uses the client that openapi-python-client made of the admin API's document:
use_admin.py URL TOKEN."""

import sys

from admin import AuthenticatedClient
from admin.api.backends import add_backend, drain_backend, list_backends, remove_backend
from admin.api.limits import create_limit, delete_limit, get_limit, list_limits, update_limit
from admin.api.operations import get_log_level, reload
from admin.models import BackendBody, ErrorCode, LimitBody, NewBackend


def main(url, token):
    operator = AuthenticatedClient(url, token=token, raise_on_unexpected_status=True)

    new = NewBackend(url="http://127.0.0.1:9", weight=3)
    added = add_backend.sync(client=operator, body=new)
    (name,) = [backend.name for backend in added.backends]
    again = add_backend.sync_detailed(client=operator, body=new)
    assert again.status_code == 409 and again.parsed.code == ErrorCode.BACKEND_EXISTS, again
    listed = [backend.name for backend in list_backends.sync(client=operator).backends]
    assert name in listed, listed
    body = BackendBody(backend=name)
    assert drain_backend.sync_detailed(client=operator, body=body).status_code == 204
    gone = remove_backend.sync_detailed(client=operator, body=body)
    assert gone.status_code == 404 and gone.parsed.code == ErrorCode.BACKEND_NOT_FOUND, gone

    def limit(rate):
        return LimitBody(client_id="198.51.100.1", capacity=5, rate_per_sec=rate)

    assert create_limit.sync_detailed(client=operator, body=limit(1)).status_code == 201
    assert create_limit.sync(client=operator, body=limit(1)).code == ErrorCode.LIMIT_EXISTS
    assert update_limit.sync_detailed(client=operator, body=limit(2)).status_code == 204
    assert get_limit.sync(client=operator, client_id="198.51.100.1").rate_per_sec == 2
    assert [it.client_id for it in list_limits.sync(client=operator).limits] == ["198.51.100.1"]
    deleted = delete_limit.sync_detailed(client=operator, client_id="198.51.100.1")
    assert deleted.status_code == 204, deleted

    assert get_log_level.sync(client=operator).level
    assert reload.sync_detailed(client=operator).status_code == 204
    stranger = AuthenticatedClient(url, token="nothing", raise_on_unexpected_status=True)
    assert list_backends.sync(client=stranger).code == ErrorCode.UNAUTHORIZED


main(sys.argv[1], sys.argv[2])
