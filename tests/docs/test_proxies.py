"""The reverse proxies of docs/reachability.md, run as they are shown: page, upload and WebSocket pass them."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import websockets

from stream.protocol import SessionConfig
from tests.docs.documents import DOCUMENTS, Block, blocks

START_TIMEOUT_S = 20.0


def block(language: str) -> Block:
    (found,) = (item for document in DOCUMENTS for item in blocks(document) if item.language == language)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """With each of the words replaced, which have to be there."""
    for old, new in pairs:
        assert old in text, f"{old} is not in the example"
        text = text.replace(old, new)
    return text


@contextmanager
def running(words: list[str], folder: Path, port: int) -> Iterator[None]:
    """A program that listens on a port."""
    with (folder / "log.txt").open("w+") as log:
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + START_TIMEOUT_S
            while True:
                assert process.poll() is None, (folder / "log.txt").read_text()
                assert time.monotonic() < end, (folder / "log.txt").read_text()
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(10)


@contextmanager
def nginx(folder: Path, material: Path, upstream: str) -> Iterator[str]:
    port = free_port()
    site = replaced(
        block("nginx").text,
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("avatar.example.net;", "localhost;"),
        ("/etc/letsencrypt/live/avatar.example.net", str(material)),
        ("127.0.0.1:8080", upstream),
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid nginx.pid; error_log stderr; events {{}}\nhttp {{ access_log off;\n{site} }}\n"
    )
    words = ["nginx", "-p", f"{folder}/", "-e", "stderr", "-c", str(folder / "nginx.conf")]
    with running(words, folder, port):
        yield f"https://localhost:{port}"


@contextmanager
def caddy(folder: Path, material: Path, upstream: str) -> Iterator[str]:
    """On plain http: a certificate would have to come from the internet."""
    port = free_port()
    site = replaced(
        block("caddyfile").text,
        ("avatar.example.net", f"http://localhost:{port}"),
        ("127.0.0.1:8080", upstream),
    )
    (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n}}\n{site}")
    with running(["caddy", "run", "--config", "Caddyfile", "--adapter", "caddyfile"], folder, port):
        yield f"http://localhost:{port}"


@pytest.mark.parametrize("proxy", [nginx, caddy], ids=lambda proxy: proxy.__name__)
async def test_everything_passes_the_proxy(
    proxy: Callable[..., Iterator[str]], tmp_path: Path, material: Path, served: str, trusting: ssl.SSLContext
) -> None:
    name = proxy.__name__
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    with proxy(tmp_path, material, served.rpartition("/")[2].replace("localhost", "127.0.0.1")) as url:
        async with httpx.AsyncClient(base_url=url, verify=trusting, timeout=60) as http:
            assert (await http.get("/healthz")).status_code == 200
            assert "<html" in (await http.get("/")).text
            # Five megabytes behind the picture's end: more than proxies take by themselves.
            picture = (material / "me.jpg").read_bytes() + bytes(5_000_000)
            answer = await http.post("/v1/portraits", files={"picture": picture}, data={"draft": "true"})
            assert answer.status_code == 201, answer.text
            offer = (material / "offer.sdp").read_text()
            answer = await http.post(
                f"/whip?stream={name}", content=offer, headers={"Content-Type": "application/sdp"}
            )
            assert answer.status_code == 201, answer.text
            assert "urn:ietf:params:whep" in answer.headers["Link"]
            assert (await http.delete(answer.headers["Location"])).status_code == 200
        context = trusting if url.startswith("https") else None
        async with websockets.connect(
            f"{url.replace('http', 'ws', 1)}/v1/sessions/ws", ssl=context
        ) as session:
            await session.send(SessionConfig().to_json())
            assert json.loads(await session.recv())["type"] == "ready"
