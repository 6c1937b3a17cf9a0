"""Addresses as people write them, and where a token comes from."""

from __future__ import annotations

import argparse
import importlib

import httpx
import pytest

from client.api import ServerApi
from client.cli import main
from client.errors import ClientError, ServerRefusedError
from client.latency.adapters import JsonOfferAdapter, WhipWhepAdapter
from client.peer import AvatarClient
from client.server_address import (
    TOKEN_VARIABLE,
    endpoint_address,
    server_address,
    socket_address,
    token_or_environment,
)
from client.websocket import AvatarSocket
from stream import security
from stream.protocol import SessionConfig

COMMANDS = (
    "client.talk",
    "client.camera",
    "client.latency.command",
    "client.latency.load",
    "client.doctor.command",
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://localhost:8080", "http://localhost:8080"),
        ("localhost:8500", "http://localhost:8500"),
        ("//localhost:8500/", "http://localhost:8500"),
        ("  localhost:8500 ", "http://localhost:8500"),
        ("talk.example.org", "http://talk.example.org:8080"),
        ("//host", "http://host:8080"),
        ("host:", "http://host:8080"),
        ("192.0.2.7", "http://192.0.2.7:8080"),
        ("https://talk.example.org/", "https://talk.example.org"),
        ("HTTPS://Talk.example.org:444", "https://talk.example.org:444"),
        ("https://example.org/talk/", "https://example.org/talk"),
        ("http://localhost:8080/?portrait=mira#top", "http://localhost:8080"),
        ("localhost:8080/watch.html?stream=x", "http://localhost:8080"),
        ("ws://host:81/v1/sessions/ws", "http://host:81"),
        ("wss://host", "https://host"),
        ("::1", "http://[::1]:8080"),
        ("[::1]:8500", "http://[::1]:8500"),
        ("http://[2001:db8::1]/", "http://[2001:db8::1]"),
        ("bücher.example:80", "http://bücher.example:80"),
        ("my_host:80", "http://my_host:80"),
    ],
)
def test_addresses_are_understood_as_people_write_them(text: str, address: str) -> None:
    assert server_address(text) == address
    assert server_address(address) == address
    assert socket_address(text) == f"ws{address.removeprefix('http')}/v1/sessions/ws"


NONSENSE = [
    "", " ", "/", "http://", "http:///x", "ftp://host", "file:///etc/passwd", "host:99999", "host:abc", "host:-1",
    "host:0", "http:/host", "http//host", "http:host", "a b", "http://[::1", "a..b", "x" * 64, "h:1:2", "http://http://x",
    "host!", "?x", "\\\\host\\share",
]  # fmt: skip


@pytest.mark.parametrize("text", NONSENSE)
def test_what_is_no_address_is_a_sentence(text: str) -> None:
    with pytest.raises(ClientError, match=r"(?s)is no server's address: .*Write it like localhost:8080"):
        server_address(text)
    for client in (ServerApi, AvatarClient, AvatarSocket):
        with pytest.raises(ClientError, match="no server's address"):
            client(text)


def test_other_servers_endpoints_keep_their_path() -> None:
    assert endpoint_address("localhost:8010/offer?x=1") == "http://localhost:8010/offer?x=1"
    assert endpoint_address("https://host/a.html") == "https://host/a.html"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_understands_them(command: str) -> None:
    parser = argparse.ArgumentParser()
    importlib.import_module(command).add_arguments(parser)
    args = parser.parse_args(["--server", "localhost:8500", "--token", "t"])
    assert args.server.removeprefix("http://") == "localhost:8500"
    assert args.token == "t"
    assert parser.parse_args([]).token is None


@pytest.mark.parametrize("command", ["talk", "camera", "load", "doctor"])
def test_every_command_refuses_what_is_none(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--server", "ftp://x"])
    assert stop.value.code == 2
    assert "'ftp://x' is no server's address: 'ftp' is neither http nor https" in capsys.readouterr().err


def test_latency_refuses_what_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["latency", "--server", "host:abc", "--adapter", "json"]) == 1
    assert "its port is no number" in capsys.readouterr().err


def test_the_token_given_wins_over_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert token_or_environment(None) is None
    monkeypatch.setenv(TOKEN_VARIABLE, " secret-word\n")
    assert token_or_environment(None) == "secret-word"
    assert token_or_environment("other") == "other"
    assert token_or_environment("") is None
    assert security.TOKEN_VARIABLE == TOKEN_VARIABLE
    for wrong in ("pässword", "two words", "line\nbreak"):
        with pytest.raises(ClientError, match="holds characters that no token has"):
            ServerApi("host", token=wrong)
    monkeypatch.setenv(TOKEN_VARIABLE, "pässword")
    with pytest.raises(ClientError, match=TOKEN_VARIABLE):
        AvatarSocket("host")


async def test_the_environments_token_goes_to_our_servers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "secret-word")
    for adapter, header in (
        (WhipWhepAdapter("http://host/whip"), "Bearer secret-word"),
        (WhipWhepAdapter("http://host/whip", token="other"), "Bearer other"),
        (JsonOfferAdapter("http://host/offer"), None),
        (JsonOfferAdapter("http://host/offer", token="other"), "Bearer other"),
    ):
        assert adapter._http.headers.get("Authorization") == header
        await adapter.aclose()


@pytest.mark.parametrize("given", [None, "wrong"])
async def test_a_refused_token_names_the_variable(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Authorization"))
        return httpx.Response(401, json={"error": {"code": "unauthorized", "message": "It needs a token."}})

    async with ServerApi("host", token=given, transport=httpx.MockTransport(answer)) as api:
        with pytest.raises(ServerRefusedError, match=f"It needs a token.*{TOKEN_VARIABLE}") as refused:
            await api.describe()
    assert ("is not the server's" in str(refused.value)) == (given is not None)
    assert seen == [None if given is None else "Bearer wrong"]


@pytest.mark.parametrize("client", [AvatarClient, AvatarSocket])
def test_a_portrait_beside_a_configuration_is_not_lost(
    client: type[AvatarClient] | type[AvatarSocket],
) -> None:
    config = SessionConfig(seed=5)
    assert client("host").config == SessionConfig()
    assert client("host", portrait="bob").config == SessionConfig(portrait="bob")
    assert client("host", config=config).config == config
    assert client("host", portrait="bob", config=config).config == SessionConfig(portrait="bob", seed=5)
    named = SessionConfig(portrait="bob")
    assert client("host", portrait="bob", config=named).config == named
    with pytest.raises(ClientError, match=r"portrait is 'ada', but config.portrait is 'bob'"):
        client("host", portrait="ada", config=named)
