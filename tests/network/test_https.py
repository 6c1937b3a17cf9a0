"""https: what the doctor says of a certificate, and a server that speaks it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from client.doctor import certificate
from client.doctor.finding import OK, PROBLEM, WARNING, Finding
from stream import serve
from stream.errors import ConfigError
from tests.browser.served import ROOT, SERVE, STAND_IN
from tests.network.certificates import Authority

START_TIMEOUT_S = 90


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.path))


@asynccontextmanager
async def listening(files: tuple[Path, Path] | None) -> AsyncIterator[str]:
    """A server that shakes hands; without files, one that knows no TLS. Yields its URL, by localhost."""
    context = None
    if files is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"


async def examine(url: str, context: ssl.SSLContext | None = None) -> Finding:
    (found,) = await certificate.check(url, context)
    return found


@pytest.mark.parametrize(
    ("host", "days", "mark", "word"),
    [
        ("localhost", (-1, 20.5), OK, "20 days"),
        ("localhost", (-1, 3.5), WARNING, "Renew"),
        ("localhost", (-9, -2), PROBLEM, "has expired"),
        ("localhost", (2, 9), PROBLEM, "not valid yet"),
        ("example.net", (-1, 20), PROBLEM, "another name than localhost"),
    ],
)
async def test_certificates_are_judged_as_by_a_browser(
    authority: Authority, trusting: ssl.SSLContext, tmp_path: Path, host: str, days: tuple[float, float], mark: str,
    word: str,
) -> None:  # fmt: skip
    async with listening(authority.issue(tmp_path, host, days=days)) as url:
        found = await examine(url, trusting)
    assert found.mark == mark, found
    assert word in found.line()


async def test_an_authority_that_nobody_knows_and_other_troubles(
    authority: Authority, tmp_path: Path
) -> None:
    async with listening(authority.issue(tmp_path, "localhost")) as url:
        found = await examine(url)
        assert found.mark == PROBLEM
        assert "Nobody whom this machine trusts" in found.says
        assert "SSL_CERT_FILE" in found.remedy
    assert "cannot be reached" in (await examine(url)).says
    async with listening(None) as url:
        found = await examine(url)
        assert found.mark == PROBLEM
        assert "does not speak TLS" in found.says
    assert (await examine("http://localhost:8080")).mark == OK
    assert (await examine("http://example.net")).mark == WARNING


def build(*words: str) -> object:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return serve.build_config(parser.parse_args(words))


def test_files_that_do_not_go_together_are_refused(authority: Authority, tmp_path: Path) -> None:
    good, key = (str(path) for path in authority.issue(tmp_path, "localhost"))
    other = str(authority.issue(tmp_path, "example.net")[1])
    build("--certificate", good, "--key", key)
    for words, expected in (
        (("--certificate", good), "belong together"),
        (("--certificate", good, "--key", other), "is not the key of the certificate"),
        (("--certificate", good, "--key", str(tmp_path)), "cannot be read: Is a directory"),
        (("--certificate", key, "--key", key), "are not a certificate and its key"),
        (("--certificate", str(tmp_path / "no.pem"), "--key", key), "There is no certificate at"),
    ):
        with pytest.raises(ConfigError, match=expected):
            build(*words)


@pytest.mark.slow
def test_a_conversation_over_https(authority: Authority, trusting: ssl.SSLContext, tmp_path: Path) -> None:
    """By the doctor, so that signalling goes through TLS and media work beside it."""
    files = [str(path) for path in authority.issue(tmp_path, "localhost")]
    config = tmp_path / "serve.yaml"
    config.write_text(f"model: {{factory: {STAND_IN}, warm_up_windows: 4}}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["--config", str(config), "--port", str(port), "--certificate", files[0], "--key", files[1]]
    log = tmp_path / "server.log"
    with log.open("wb") as out:
        server = subprocess.Popen([sys.executable, "-c", SERVE, *words], cwd=ROOT, stdout=out, stderr=out)
    url = f"https://localhost:{port}"
    try:
        end = time.monotonic() + START_TIMEOUT_S
        while not _ready(url, trusting):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        done = subprocess.run(
            [sys.executable, "-m", "client.cli", "doctor", "--server", url, "--json"], cwd=ROOT, timeout=90,
            capture_output=True, text=True, check=False, env=os.environ | {"SSL_CERT_FILE": str(authority.path)},
        )  # fmt: skip
    finally:
        server.terminate()
        server.wait(20)
    assert f"Talkalong is ready: {url}/" in log.read_text()
    found = {item["check"]: item for item in json.loads(done.stdout)["findings"]}
    assert found["certificate"]["mark"] == OK, found["certificate"]
    assert found["server"]["mark"] == OK, found["server"]
    assert found["session"]["figures"].get("voice") is True, found["session"]


def _ready(url: str, context: ssl.SSLContext) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=2, context=context) as answer:
            return bool(json.load(answer)["status"] == "ready")
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError:
        return False
