"""Every refusal has its status, a stable code, and a sentence that helps."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from PIL import Image

from stream.config import LimitsConfig, SecurityConfig
from stream.server import create_app
from tests.loopback.conftest import Running, plain_gallery, quiet_config, start
from tests.loopback.peer import Peer

SDP = {"Content-Type": "application/sdp"}
TRICKLE = {"Content-Type": "application/trickle-ice-sdpfrag"}


@pytest.fixture
async def offer() -> AsyncIterator[str]:
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTransceiver("audio", direction="sendrecv")
    pc.addTransceiver("video", direction="recvonly")
    await pc.setLocalDescription(await pc.createOffer())
    yield pc.localDescription.sdp
    await pc.close()


def check(answer: httpx.Response, status: int, code: str, *words: str) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert len(error["message"].split()) > 3
    assert error["message"].endswith((".", ").", "'."))
    for word in words:
        assert word in error["message"]


async def test_refused_offers(running: Running, offer: str) -> None:
    post = running.http.post
    check(await post("/v1/sessions", content="hello", headers=SDP), 400, "bad_sdp", "v=0")
    check(await post("/v1/sessions", content="v=0\r\nm=nonsense\r\n", headers=SDP), 400, "bad_sdp")
    check(
        await post("/v1/sessions", content="v=0\r\n" + "a" * 70_000, headers=SDP),
        413,
        "sdp_too_large",
        "65536",
    )
    check(await post("/v1/sessions", content=offer), 415, "unsupported_media_type", "application/sdp")
    check(await post("/v1/sessions", json={"sdp": offer}), 415, "unsupported_media_type")
    check(
        await post("/v1/sessions?portrait=nobody", content=offer, headers=SDP),
        404,
        "portrait_not_found",
        "ada",
        "bob",
    )
    check(await post("/v1/sessions?volume=3", content=offer, headers=SDP), 400, "bad_config", "volume")
    check(await post("/v1/sessions?seed=x", content=offer, headers=SDP), 400, "bad_config")
    only_audio = offer[: offer.index("m=video")].replace("BUNDLE 0 1", "BUNDLE 0")
    check(await post("/v1/sessions", content=only_audio, headers=SDP), 400, "bad_sdp", "video")
    form = {"config": (None, "{}")}
    check(await post("/v1/sessions", files=form), 400, "missing_field", "sdp")
    form = {"sdp": (None, offer), "config": (None, '{"controls": {"head_motion": 9}}')}
    check(await post("/v1/sessions", files=form), 400, "bad_config", "between 0 and 2")
    assert not running.server.sessions  # none of these left anything behind


async def test_sessions_that_are_not_there(running: Running) -> None:
    http = running.http
    check(await http.get("/v1/sessions/nope/stats"), 404, "session_not_found")
    check(await http.patch("/v1/sessions/nope", content="a=mid:0", headers=TRICKLE), 404, "session_not_found")
    assert (await http.delete("/v1/sessions/nope")).status_code == 204
    check(await http.get("/v1/nothing"), 404, "http_404")
    check(await http.put("/v1/portraits"), 405, "http_405")


async def test_trickle(running: Running) -> None:
    async with Peer(running.http) as peer:
        patch = running.http.patch
        line = "a=candidate:9 1 udp 2130706431 127.0.0.1 40000 typ host"
        good = await patch(
            peer.location, content=f"a=mid:0\r\n{line}\r\na=end-of-candidates\r\n", headers=TRICKLE
        )
        assert good.status_code == 204
        check(await patch(peer.location, content=line, headers=SDP), 415, "unsupported_media_type")
        check(await patch(peer.location, content="hello", headers=TRICKLE), 400, "bad_fragment", "a=mid:0")


async def test_deleting_twice_is_fine(running: Running) -> None:
    async with Peer(running.http) as peer:
        for _ in range(2):
            assert (await running.http.delete(peer.location)).status_code == 204
        assert not running.server.sessions


async def test_a_full_server_says_when_to_come_back(offer: str) -> None:
    config = dataclasses.replace(quiet_config(), limits=LimitsConfig(sessions=2, sessions_per_address=1))
    async with start(config) as running, Peer(running.http):
        post = running.http.post
        check(await post("/v1/sessions", content=offer, headers=SDP), 429, "too_many_sessions")
        running.server.guard.enter("10.0.0.7", carried=9)
        full = await post("/v1/sessions", content=offer, headers=SDP)
        check(full, 503, "server_full", "2 sessions")
        assert int(full.headers["Retry-After"]) > 0


async def test_the_token_guards_every_change(offer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TALKALONG_TOKEN", raising=False)
    config = dataclasses.replace(quiet_config(), security=SecurityConfig(token="secret-word"))
    async with start(config) as running:
        http = running.http
        for answer in (
            await http.post("/v1/sessions", content=offer, headers=SDP),
            await http.post("/v1/sessions", content=offer, headers=SDP | {"Authorization": "Bearer wrong"}),
            await http.patch("/v1/sessions/x", content="", headers=TRICKLE),
            await http.delete("/v1/sessions/x"),
            await http.delete("/v1/portraits/ada"),
        ):
            check(answer, 401, "unauthorized", "Bearer")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        allowed = await http.post(
            "/v1/sessions", content=offer, headers=SDP | {"Authorization": "Bearer secret-word"}
        )
        assert allowed.status_code == 201
        assert (await http.get("/v1/server")).json()["token_required"] is True


async def test_before_warm_up_the_server_says_so(offer: str) -> None:
    app = create_app(quiet_config(), gallery=plain_gallery())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as http:
        health = await http.get("/healthz")
        assert health.status_code == 503
        assert health.json()["status"] == "warming_up"
        answer = await http.post("/v1/sessions", content=offer, headers=SDP)
        check(answer, 503, "warming_up", "loading")
        assert "Retry-After" in answer.headers


async def test_a_model_that_is_missing_is_named(caplog: pytest.LogCaptureFixture) -> None:
    config = dataclasses.replace(
        quiet_config(), model=dataclasses.replace(quiet_config().model, factory="no.such")
    )
    app = create_app(config, gallery=plain_gallery())
    async with app.router.lifespan_context(app):
        server = app.state.server
        await server._starting
        assert server.status == "failed"
        assert "could not start" in server.message


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(out, kind)
    return out.getvalue()


async def test_refused_portraits(running: Running) -> None:
    http = running.http
    consent = {"consent": "I, the person in the picture, agree to this test."}

    async def upload(
        data: bytes, kind: str = "image/png", fields: dict[str, str] = consent
    ) -> httpx.Response:
        return await http.post("/v1/portraits", files={"picture": ("a.png", data, kind)}, data=fields)

    check(await upload(picture(64, 64), fields={}), 400, "consent_missing", "agree")
    check(await upload(b"not a picture"), 400, "not_an_image", "JPEG")
    for kind in ("image/gif", "image/png"):  # what it says it is does not count
        check(await upload(picture(64, 64, "GIF"), kind), 400, "not_an_image", "GIF")
    check(await upload(b"\0\0\0\x18ftypheic" + bytes(400), "image/jpeg"), 400, "not_an_image", "HEIC")
    check(await upload(picture(16_000, 4_000)), 413, "picture_too_large", "megapixels")
    check(await upload(picture(4_000_000, 1)), 400, "not_an_image", "only 4000000 x 1 pixels")
    check(await upload(bytes(64_000_001)), 413, "picture_too_large", "MB")
    check(await http.post("/v1/portraits", data=consent), 400, "bad_request", "picture")
    check(await http.delete("/v1/portraits/ada"), 403, "forbidden")
    assert (await http.delete("/v1/portraits/nobody")).status_code == 204
    check(await http.get("/v1/portraits/nobody/thumbnail"), 404, "portrait_not_found")
    check(await http.get("/v1/portraits/ada/film"), 404, "not_found")


async def test_the_gallery_is_listed_and_shown(running: Running) -> None:
    listed = (await running.http.get("/v1/portraits")).json()
    assert [item["id"] for item in listed["portraits"]] == ["ada", "bob"]
    assert listed["default"] == "ada"
    for view in ("thumbnail", "picture"):
        shown = await running.http.get(listed["portraits"][0][view])
        assert shown.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(shown.content)).size == ((256, 256) if view == "thumbnail" else (64, 64))
