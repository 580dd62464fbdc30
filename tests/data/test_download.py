"""Downloads, from a server on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fewshot_bench.data.download import download_file
from fewshot_bench.errors import DataError

CONTENT = b"omniglot" * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers the n-th request as the n-th word of ``plan`` says (the last for all others)."""

    plan: list[str]
    requests: int = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        word = self.server.plan[min(self.server.requests, len(self.server.plan) - 1)]
        self.server.requests += 1
        if word == "missing":
            self.send_error(404)
            return
        content = CONTENT[::-1] if word == "wrong" else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:100] if word == "cut" else content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def fetch(server: Server, path: Path, *plan: str) -> None:
    server.plan = list(plan)
    url = f"http://127.0.0.1:{server.server_port}/x.zip"
    download_file(url, path, md5=MD5, wait=0.0)


@pytest.mark.parametrize("trouble", ["missing", "wrong", "cut"])
def test_it_tries_again(server: Server, tmp_path: Path, trouble: str) -> None:
    fetch(server, tmp_path / "x.zip", trouble, trouble, "good")
    assert (tmp_path / "x.zip").read_bytes() == CONTENT
    assert server.requests == 3


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("missing", "answered 404"),
        ("wrong", f"expected {MD5}"),
        ("cut", f"broke off after 100 of {len(CONTENT)} bytes"),
    ],
)
def test_it_gives_up_and_leaves_nothing(
    server: Server, tmp_path: Path, trouble: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        fetch(server, tmp_path / "x.zip", trouble)
    assert "x.zip failed after 3 tries" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(CONTENT)
    fetch(server, tmp_path / "x.zip", "missing")
    assert server.requests == 0
    (tmp_path / "x.zip").write_bytes(b"old")
    fetch(server, tmp_path / "x.zip", "good")
    assert (tmp_path / "x.zip").read_bytes() == CONTENT


def test_no_network(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no connection"):
        download_file("http://127.0.0.1:9/x.zip", tmp_path / "x.zip", tries=1)
