"""WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep) over HTTP: each status, header and limit."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator

import httpx
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection

from client.latency.adapters import WhipWhepAdapter
from stream.config import IceConfig, IceServerConfig, LimitsConfig, SecurityConfig
from stream.server import create_app
from tests.loopback.broadcasting import SDP, TRICKLE, Silence, Source, Watcher, offer_of
from tests.loopback.conftest import Running, plain_gallery, quiet_config, start
from tests.loopback.test_refusals import check

CANDIDATE = "a=candidate:9 1 udp 2130706431 127.0.0.1 40000 typ host"
FRAGMENT = f"a=mid:0\r\n{CANDIDATE}\r\na=end-of-candidates\r\n"


async def offered(*media: tuple[str, str]) -> str:
    """The offer of a connection that is never made: (kind, direction) of its sections."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    for kind, direction in media:
        pc.addTransceiver(
            Silence() if (kind, direction) == ("audio", "sendonly") else kind, direction=direction
        )
    sdp = await offer_of(pc)
    await pc.close()
    return sdp


@pytest.fixture
async def up() -> str:
    return await offered(("audio", "sendonly"))


@pytest.fixture
async def down() -> str:
    return await offered(("audio", "recvonly"), ("video", "recvonly"))


@pytest.fixture
async def small() -> AsyncIterator[Running]:
    """Two viewers at most, one session, and ICE servers to tell of."""
    servers = (
        IceServerConfig(urls="stun:stun.invalid:3478"),
        IceServerConfig(urls="turn:turn.invalid:3478", username="ada", credential='s"ecret'),
    )
    limits = LimitsConfig(sessions=2, viewers=2, viewers_per_address=1, candidates=3, close_timeout_s=1.0)
    async with start(
        dataclasses.replace(quiet_config(), limits=limits, ice=IceConfig(servers=servers))
    ) as it:
        yield it


async def test_a_source_is_told_where_it_is_and_where_it_is_seen(running: Running, up: str) -> None:
    created = await running.http.post("/whip?stream=stage&portrait=bob", content=up, headers=SDP)
    assert created.status_code == 201
    assert created.headers["content-type"] == "application/sdp"
    assert created.headers["ETag"].startswith('"')
    assert created.headers["Link"] == '</whep/stage>; rel="urn:ietf:params:whep"'
    assert "a=recvonly" in created.text
    assert "a=sendrecv" not in created.text
    place = created.headers["Location"]
    assert len(place.removeprefix("/whip/")) == 32
    for method in ("GET", "HEAD"):
        for address in ("/whip", place, "/whep/stage", "/whep/stage/x"):
            empty = await running.http.request(method, address)
            assert (empty.status_code, empty.content) == (204, b"")
    for _ in range(2):
        assert (await running.http.delete(place, headers={"If-Match": '"other"'})).status_code == 200
    assert not running.server.sessions
    assert (await running.http.delete("/whip/nobody")).status_code == 200


async def test_a_viewer_is_answered_in_one_stream(running: Running, down: str) -> None:
    async with Source(running.http) as source:
        seen = await running.http.post(source.whep, content=down, headers=SDP)
        assert seen.status_code == 201
        assert seen.headers["Location"].startswith(f"{source.whep}/")
        assert seen.headers["ETag"].startswith('"')
        assert "Link" not in seen.headers
        assert seen.text.count("a=sendonly") == 2
        streams = {line.split()[0] for line in seen.text.splitlines() if line.startswith("a=msid:")}
        assert len(streams) == 1
        only_sound = await running.http.post(
            source.whep, content=await offered(("audio", "sendrecv")), headers=SDP
        )
        assert only_sound.status_code == 201
        assert "a=sendonly" in only_sound.text
        assert len(running.server.audience.viewers) == 2
        for _ in range(2):
            assert (await running.http.delete(seen.headers["Location"])).status_code == 200
        assert len(running.server.audience.viewers) == 1


async def test_options_say_what_is_taken(small: Running) -> None:
    for address in ("/whip", "/whep/any"):
        options = await small.http.options(address)
        assert options.status_code == 200
        assert options.headers["Accept-Post"] == "application/sdp"
        assert "POST" in options.headers["Allow"]
        assert 'username="ada"; credential="s\\"ecret"' in options.headers["Link"]
    for address in ("/whip/x", "/whep/any/x"):
        options = await small.http.options(address)
        assert options.status_code == 200
        assert options.headers["Accept-Patch"] == "application/trickle-ice-sdpfrag"
        assert {"PATCH", "DELETE"} <= set(options.headers["Allow"].split(", "))


async def test_ice_servers_stand_beside_the_other_links(small: Running, up: str, down: str) -> None:
    created = await small.http.post("/whip?stream=s", content=up, headers=SDP)
    links = created.headers["Link"].split(", <")
    assert [link.partition(";")[2].strip() for link in links] == [
        'rel="ice-server"',
        'rel="ice-server"; username="ada"; credential="s\\"ecret"; credential-type="password"',
        'rel="urn:ietf:params:whep"',
    ]
    seen = await small.http.post("/whep/s", content=down, headers=SDP)
    assert seen.headers["Link"].count('rel="ice-server"') == 2
    page = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    page.addTransceiver("audio", direction="sendrecv")
    page.addTransceiver("video", direction="recvonly")
    session = await small.http.post("/v1/sessions", content=await offer_of(page), headers=SDP)
    assert session.headers["Link"].endswith('>; rel="urn:ietf:params:whep"')
    await page.close()


@pytest.mark.parametrize("address", ["/whip", "/whep/stage"])
async def test_what_is_no_offer_is_refused(running: Running, up: str, down: str, address: str) -> None:
    async with Source(running.http, query="?stream=stage"):
        post = running.http.post
        offer = up if address == "/whip" else down
        check(await post(address, content=offer), 415, "unsupported_media_type", "application/sdp")
        check(await post(address, json={"sdp": offer}), 415, "unsupported_media_type")
        picky = SDP | {"Accept": "application/json"}
        check(await post(address, content=offer, headers=picky), 406, "not_acceptable", "Accept")
        check(await post(address, content="hello", headers=SDP), 400, "bad_sdp", "v=0")
        check(await post(address, content="v=0\r\n" + "a" * 70_000, headers=SDP), 413, "sdp_too_large")
        check(await post(address, content="v=0\r\ns=-\r\n", headers=SDP), 422, "bad_sections")
        wrong = down if address == "/whip" else up
        check(await post(address, content=wrong, headers=SDP), 422, "bad_direction")
        foreign = offer.replace("opus/48000/2", "speex/16000").replace("PCM", "XXX")
        check(await post(address, content=foreign, headers=SDP), 400, "bad_sdp", "Opus")
        assert len(running.server.sessions) == 1
        assert not running.server.audience.viewers


async def test_other_methods_are_named_as_not_allowed(running: Running) -> None:
    for address, methods in (
        ("/whip", ("PUT", "PATCH", "DELETE")),
        ("/whep/stage", ("PUT", "PATCH", "DELETE")),
        ("/whip/x", ("PUT", "POST")),
        ("/whep/stage/x", ("PUT", "POST")),
    ):
        for method in methods:
            refused = await running.http.request(method, address)
            check(refused, 405, "method_not_allowed", method)
            assert method not in refused.headers["Allow"]
            assert "OPTIONS" in refused.headers["Allow"]


async def test_whip_options_and_names_are_checked(running: Running, up: str) -> None:
    post = running.http.post
    check(await post("/whip?portrait=nobody", content=up, headers=SDP), 404, "portrait_not_found", "ada")
    check(await post("/whip?volume=3", content=up, headers=SDP), 400, "bad_config", "volume")
    check(await post("/whip?stream=a/b", content=up, headers=SDP), 400, "bad_stream_name", "letters")
    assert (await post("/whip?stream=stage", content=up, headers=SDP)).status_code == 201
    check(await post("/whip?stream=stage", content=up, headers=SDP), 409, "stream_in_use", "stage")
    assert len(running.server.sessions) == 1


async def test_a_stream_that_is_not_on_air(running: Running, down: str) -> None:
    waiting = await running.http.post("/whep/stage", content=down, headers=SDP)
    check(waiting, 409, "not_live", "publishing")
    assert int(waiting.headers["Retry-After"]) > 0
    check(await running.http.post("/whep/a%20b", content=down, headers=SDP), 400, "bad_stream_name")
    check(await running.http.get("/watch/stage/matte.png"), 409, "not_live")


async def test_trickle(small: Running) -> None:
    patch = small.http.patch
    async with Source(small.http, query="?stream=s") as source, Watcher(small.http, source) as watcher:
        for peer, others in ((source, "/whip/none"), (watcher, "/whep/s/none")):
            place, answer = peer.location, peer.answer
            assert answer is not None
            tag = answer.headers["ETag"]
            bare = await patch(place, content=FRAGMENT, headers=TRICKLE)
            assert (bare.status_code, bare.content) == (204, b"")
            assert "ETag" not in bare.headers
            matched = await patch(place, content=FRAGMENT, headers=TRICKLE | {"If-Match": tag})
            assert matched.status_code == 204
            stale = await patch(place, content=FRAGMENT, headers=TRICKLE | {"If-Match": '"old"'})
            check(stale, 412, "precondition_failed", '"old"')
            check(await patch(place, content=FRAGMENT, headers=SDP), 415, "unsupported_media_type")
            check(await patch(place, content="hello", headers=TRICKLE), 400, "bad_fragment")
            check(await patch(others, content=FRAGMENT, headers=TRICKLE), 404, "session_not_found")
            restart = "a=ice-ufrag:new1\r\na=ice-pwd:newnewnewnewnewnewnewnew\r\n"
            refused = await patch(place, content=restart, headers=TRICKLE | {"If-Match": "*"})
            check(refused, 422, "ice_restart_unsupported", "DELETE")
            own = peer.pc.localDescription.sdp.splitlines()
            same = [line for line in own if line.startswith(("a=ice-ufrag:", "a=ice-pwd:"))][:2]
            kept = await patch(place, content="\r\n".join([*same, "a=mid:0"]), headers=TRICKLE)
            assert kept.status_code == 204
            assert peer.pc.connectionState == "connected"
            flood = "\r\n".join(
                ["a=mid:0", *[CANDIDATE.replace("40000", f"{40_000 + i}") for i in range(50)]]
            )
            assert (await patch(place, content=flood, headers=TRICKLE)).status_code == 204
            assert peer.pc.connectionState == "connected"
        whip_as_whep = source.location.replace("/whip/", "/whep/s/")
        check(await patch(whip_as_whep, content=FRAGMENT, headers=TRICKLE), 404, "session_not_found")


async def test_viewers_are_counted_and_limited(small: Running, up: str, down: str) -> None:
    post = small.http.post
    async with Source(small.http, query="?stream=s") as source:
        async with Watcher(small.http, source) as watcher:
            check(await post("/whep/s", content=down, headers=SDP), 429, "too_many_sessions", "address")
            leave = small.server.broadcasts.enter("10.0.0.7")
            full = await post("/whep/s", content=down, headers=SDP)
            check(full, 503, "viewers_full", "2 are watching")
            assert int(full.headers["Retry-After"]) > 0
            leave()
            metrics = (await small.http.get("/metrics")).text
            assert "talkalong_viewers 1.0" in metrics
            assert 'talkalong_sessions_opened_total{transport="whip"} 1.0' in metrics
            assert 'talkalong_sessions_opened_total{transport="whep"} 1.0' in metrics
            assert watcher.pc.connectionState == "connected"
        assert (await post("/whep/s", content=down, headers=SDP)).status_code == 201
        assert (await post("/whip", content=up, headers=SDP)).status_code == 201
        check(await post("/whip", content=up, headers=SDP), 503, "server_full", "2 sessions")


async def test_tokens(up: str, down: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TALKALONG_TOKEN", raising=False)
    monkeypatch.delenv("TALKALONG_VIEWER_TOKEN", raising=False)
    security = SecurityConfig(token="speak", viewer_token="look")
    ice = IceConfig(servers=(IceServerConfig(urls="stun:stun.invalid"),))
    async with start(dataclasses.replace(quiet_config(), security=security, ice=ice)) as running:
        http = running.http
        speak, look = {"Authorization": "Bearer speak"}, {"Authorization": "Bearer look"}
        for answer in (
            await http.post("/whip", content=up, headers=SDP),
            await http.post("/whip", content=up, headers=SDP | look),
            await http.patch("/whip/x", content=FRAGMENT, headers=TRICKLE | look),
            await http.delete("/whip/x"),
            await http.post("/whep/s", content=down, headers=SDP),
            await http.patch("/whep/s/x", content=FRAGMENT, headers=TRICKLE),
            await http.delete("/whep/s/x"),
        ):
            check(answer, 401, "unauthorized", "Bearer")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "Link" not in (await http.options("/whip", headers=look)).headers
        assert "Link" in (await http.options("/whip", headers=speak)).headers
        assert "Link" in (await http.options("/whep/s", headers=look)).headers
        async with (
            Source(http, query="?stream=s", headers=speak) as source,
            Watcher(http, source, headers=look) as first,
            Watcher(http, source, headers=speak),
        ):
            assert len(running.server.audience.viewers) == 2
            assert (await http.delete(first.location, headers=look)).status_code == 200
            assert len(running.server.audience.viewers) == 1
            check(await http.delete(source.location, headers=look), 401, "unauthorized")


async def test_pages_of_other_origins(up: str) -> None:
    network = dataclasses.replace(quiet_config().network, cors_origins=("https://studio.invalid",))
    async with start(dataclasses.replace(quiet_config(), network=network)) as running:
        asked = {"Origin": "https://studio.invalid", "Access-Control-Request-Method": "PATCH"}
        asked |= {"Access-Control-Request-Headers": "authorization, content-type, if-match"}
        preflight = await running.http.options("/whip/x", headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == "https://studio.invalid"
        created = await running.http.post(
            "/whip", content=up, headers=SDP | {"Origin": "https://studio.invalid"}
        )
        exposed = created.headers["Access-Control-Expose-Headers"]
        assert {"Location", "Link", "ETag"} <= set(exposed.split(", "))


async def test_before_warm_up_and_after_the_end(up: str, down: str) -> None:
    app = create_app(quiet_config(), gallery=plain_gallery())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as http:
        early = await http.post("/whip", content=up, headers=SDP)
        check(early, 503, "warming_up", "loading")
        assert "Retry-After" in early.headers
        await app.state.server.audience.aclose()
        check(await http.post("/whep/s", content=down, headers=SDP), 503, "stopping")


async def test_the_latency_harness_finds_both_addresses(running: Running, up: str, down: str) -> None:
    adapter = WhipWhepAdapter("http://testserver/whip")
    await adapter._http.aclose()
    adapter._http = running.http
    assert (await adapter.exchange(up, "up")).startswith("v=0")
    assert (await adapter.exchange(down, "down")).startswith("v=0")
    assert len(running.server.audience.viewers) == 1
    for place in adapter._places:
        await running.http.delete(place)
    await asyncio.sleep(0)
    assert not running.server.audience.viewers
    assert not running.server.sessions
