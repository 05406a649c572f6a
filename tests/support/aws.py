"""A server that speaks the protocols of AWS, on this machine, and one that speaks none of them."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from moto.server import ThreadedMotoServer


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Its address, with credentials that it takes in the environment."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "cn-north-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            environment.setenv(name, value)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        try:
            host, port = server.get_host_and_port()
            yield f"http://{host}:{port}"
        finally:
            server.stop()


STRANGE: dict[str, bytes] = {
    "a page": b"HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n<html>log in</html>    ",
    "an empty object": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a list": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    "a number": b'HTTP/1.1 200 OK\r\nContent-Length: 34\r\n\r\n{"CiphertextBlob":7,"Plaintext":7}',
    "half": b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"Ciph',
    "a way elsewhere": b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
}
"""What a server may answer that is between us and the one that is meant."""


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that answers every request with these bytes; its address."""

    def one(client: socket.socket) -> None:
        with client:
            client.recv(65_536)
            client.sendall(answer)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65_536):
                pass

    def every() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            client.settimeout(0.1)
            try:
                one(client)
            except OSError:
                continue

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=every, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)
