"""Addresses at which no Ray cluster answers, refused within seconds and without Ray."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from quantgate.errors import InputError
from quantgate.run.cluster import connection
from quantgate.run.cluster.connection import Cluster, unanswered


@contextmanager
def server(answer: bytes) -> Iterator[str]:
    """Something that gives every caller one answer; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    caller, _ = listening.accept()
                    with caller:
                        caller.recv(64)
                        caller.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    why = unanswered(address)
    assert why.startswith(
        f"no Ray cluster answers at {address} (Connection refused): start one with `ray start"
    )


def test_something_else_listens() -> None:
    with server(b"SSH-2.0-OpenSSH_9.7\r\n") as address:
        assert unanswered(address).startswith(f"what answers at {address} is not a Ray cluster: start one")


def test_what_speaks_http2_may_be_one() -> None:
    with server(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])) as address:
        assert unanswered(address) == ""


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nonsense", "'nonsense' is not the address of a Ray cluster: write HOST:PORT"),
        ("host:", "'host:' is not the address of a Ray cluster"),
        ("127.0.0.1:99999", "no Ray cluster answers at 127.0.0.1:99999"),
        (
            "ray://head:10001",
            "ray://head:10001: is a Ray Client's address: run pytest on a node of the cluster",
        ),
    ],
)
def test_what_is_no_address(address: str, words: str) -> None:
    assert unanswered(address).startswith(words)


def test_without_ray_its_installation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUIRED", {"ray_of_nowhere": "'quantgate[ray]'"})
    with pytest.raises(InputError) as caught:
        Cluster()
    message = "--executor ray: ray_of_nowhere is not installed: pip install 'quantgate[ray]'"
    assert str(caught.value) == message
