"""ICE servers: coturn's credentials, what a Link header says, what a configuration refuses, and that secrets stay."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest

from stream.config import IceConfig, IceServerConfig, LimitsConfig, ServeConfig, load_config
from stream.errors import ConfigError
from stream.ice import Ice, IceServer, turn_credentials

SECRET = "north-wind-and-sun"
NOW = 1_800_000_000
TURN = "turn:turn.example.net:3478?transport=udp"


@pytest.fixture(autouse=True)
def no_secret_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TALKALONG_TURN_SECRET", raising=False)


def ice(**options: object) -> Ice:
    servers = (IceServerConfig(urls="stun:stun.example.net"), IceServerConfig(urls=TURN, secret=SECRET))
    config = ServeConfig(
        ice=IceConfig(servers=servers, **options),  # type: ignore[arg-type]
        limits=LimitsConfig(session_minutes=50),
    )
    return Ice(config, now=lambda: NOW)


def test_credentials_are_those_of_the_turn_rest_scheme() -> None:
    username, credential = turn_credentials(SECRET, expires_at=1_433_895_918, name="mbzrxpgjys")
    assert username == "1433895918:mbzrxpgjys"
    assert base64.b64decode(credential) == hmac.digest(SECRET.encode(), username.encode(), hashlib.sha1)
    # RFC 2202, test case 2, as base64: that it is HMAC-SHA1 with the secret as its key
    _, known = turn_credentials("Jefe", expires_at=0, name="x")
    assert base64.b64decode(known) == hmac.digest(b"Jefe", b"0:x", "sha1")


def test_each_session_has_its_own_credentials_for_as_long_as_it_may_last() -> None:
    first, second = (ice().servers()[1] for _ in range(2))
    assert first.username is not None
    expiry, _, name = first.username.partition(":")
    assert int(expiry) == NOW + 60 * (50 + 10)
    assert name
    assert first.username != second.username
    assert first.credential != second.credential
    short = ice(credential_minutes=1.0).servers()[1]
    assert str(short.username).startswith(f"{NOW + 60}:")


def test_the_environment_holds_the_secret_of_servers_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKALONG_TURN_SECRET", "from-outside")
    servers = (
        IceServerConfig(urls=TURN),
        IceServerConfig(urls=TURN, username="me", credential="mine"),
        IceServerConfig(urls="stun:a"),
    )
    made, fixed, stun = Ice(ServeConfig(ice=IceConfig(servers=servers)), now=lambda: NOW).servers()
    assert made.username is not None
    assert (
        made.credential
        == turn_credentials(
            "from-outside",
            expires_at=int(made.username.partition(":")[0]),
            name=made.username.partition(":")[2],
        )[1]
    )
    assert (fixed.username, fixed.credential) == ("me", "mine")
    assert stun.to_dict() == {"urls": "stun:a"}


def test_links_are_written_as_in_rfc_9725() -> None:
    server = IceServer(urls=TURN, username="user", credential="myPassword")
    assert server.link() == (
        '<turn:turn.example.net:3478?transport=udp>; rel="ice-server"; username="user"; credential="myPassword"; '
        'credential-type="password"'
    )
    assert IceServer(urls="stun:a").link() == '<stun:a>; rel="ice-server"'
    assert 'credential="a\\"b\\\\c"' in IceServer(urls=TURN, username="u", credential='a"b\\c').link()
    assert ice().link_header()["Link"].count("rel=") == 2
    assert Ice(ServeConfig()).link_header() == {}


def test_a_caller_without_the_token_learns_of_stun_only() -> None:
    assert ice().describe(trusted=False)["ice_servers"] == [{"urls": "stun:stun.example.net"}]
    trusted = ice(client_policy="relay").describe(trusted=True)
    assert [server["urls"] for server in trusted["ice_servers"]] == ["stun:stun.example.net", TURN]
    assert set(trusted["ice_servers"][1]) == {"urls", "username", "credential"}
    assert trusted["ice_transport_policy"] == "relay"


def test_secrets_are_in_no_repr() -> None:
    server = ice().servers()[1]
    config = ServeConfig(
        ice=IceConfig(
            servers=(
                IceServerConfig(urls=TURN, secret=SECRET),
                IceServerConfig(urls=TURN, username="me", credential="hush-hush"),
            )
        )
    )
    text = f"{config!r} {config} {server!r} {ice()!r}"
    assert SECRET not in text
    assert "hush-hush" not in text
    assert str(server.credential) not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ice: {servers: [{urls: 'turn:a', secret: 4711}]}", "ice.servers[0].secret must be str or null"),
        ("ice: {servers: [{urls: 'turn:a', secret: s-4711, username: me}]}", "keep one of them"),
        ("ice: {servers: [{urls: 'turn:a', credential: s-4711}]}", "without the other"),
        ("ice: {servers: [{secret: s-4711}]}", "ice.servers[0].urls is missing"),
        ("ice: {servers: [{urls: 'http://a'}]}", "'http://a' is not the address of an ICE server"),
        ("ice: {servers: [{urls: 'turn:[::1]:3478'}]}", "in place of an IPv6 address"),
        ("ice: {servers: [{urls: 'turn:a', secret: s-4711}\n", "is not valid YAML (line 2"),
        ("security: {token: 4711}", "security.token must be str or null"),
        ("ice: {policy: relay, servers: [{urls: 'stun:a'}]}", "no TURN server to relay through"),
        ("ice: {client_policy: some}", "choose one of all, relay"),
        ("ice: {port_range: [50100, 50000]}", "the first and the last port"),
        ("ice: {port_range: [50000]}", "for example [50000, 50100]"),
        ("ice: {port_range: [80, 90]}", "between 1024 and 65535"),
        ("ice: {public_address: example.net}", "write an IPv4 address, or PUBLIC/PRIVATE"),
        ("ice: {credential_minutes: 0}", "must be positive"),
        ("network: {certificate: a.pem}", "belong together"),
    ],
)
def test_mistakes_are_sentences_without_secrets(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert "4711" not in str(caught.value)
    assert caught.value.__cause__ is None or "4711" not in str(caught.value.__cause__)


def test_a_whole_section_is_read(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(
        "ice:\n  servers:\n    - urls: 'stun:turn.example.net:3478'\n"
        "    - {urls: 'turns:turn.example.net:5349?transport=tcp', secret: abc}\n"
        "  port_range: [50000, 50100]\n  public_address: 203.0.113.7/10.0.0.5\n  policy: relay\n"
    )
    config = load_config(path).ice
    assert config.port_range == (50_000, 50_100)
    assert config.servers[1].secret == "abc"
