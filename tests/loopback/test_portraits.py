"""A portrait's life through the API: tried out, agreed to, used, renamed, found again, deleted; and who may see it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
import uvicorn
import websockets
from PIL import Image

from stream.config import LimitsConfig, PortraitsConfig, SecurityConfig, ServeConfig
from stream.portraits.entry import Entry
from stream.portraits.gallery import Gallery
from stream.portraits.portrait_store import PortraitStore
from stream.protocol import SessionConfig
from stream.server import create_app
from tests.loopback.conftest import Running, quiet_config, start
from tests.loopback.peer import Peer
from tests.loopback.test_refusals import check
from tests.streaming.portraits import plain_prepared
from tests.streaming.uploads import picture, prepare, prepare_upload

PHOTOGRAPH = Path(__file__).parents[2] / "pipeline" / "weights" / "portrait_256" / "portraits" / "mira.jpg"
AGREED = {"by": "Eve Example", "statement": "1"}


def kept_config(folder: Path, **changes: object) -> ServeConfig:
    portraits = PortraitsConfig(uploads_directory=str(folder))
    return dataclasses.replace(quiet_config(), portraits=portraits, **changes)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TALKALONG_UPLOADS", raising=False)
    monkeypatch.delenv("TALKALONG_TOKEN", raising=False)


def some_gallery(folder: Path | None, *, max_uploads: int = 32) -> Gallery:
    """Bundled Ada, and uploads that are prepared without a model."""
    ada = Entry(id="ada", portrait=plain_prepared(name="Ada"), source="bundled", origin="drawn")
    return Gallery(
        [ada],
        prepare=prepare,
        prepare_upload=prepare_upload,
        store=PortraitStore(folder),
        max_uploads=max_uploads,
    )


@contextlib.asynccontextmanager
async def light(gallery: Gallery, config: ServeConfig | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """The API without a model process: enough for everything but sessions."""
    app = create_app(config or quiet_config(), gallery=gallery)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as http:
        try:
            yield http
        finally:
            await app.state.server.aclose()


async def upload(http: httpx.AsyncClient, data: bytes, **fields: str) -> httpx.Response:
    return await http.post("/v1/portraits", files={"picture": ("eve.png", data, "image/png")}, data=fields)


async def listed(http: httpx.AsyncClient) -> dict[str, str]:
    portraits = (await http.get("/v1/portraits")).json()["portraits"]
    return {item["id"]: item["name"] for item in portraits if item["source"] == "uploaded"}


async def test_a_picture_is_tried_out_agreed_to_used_found_again_and_deleted(tmp_path: Path) -> None:
    async with start(kept_config(tmp_path), own_gallery=True) as running:
        http = running.http
        tried = await upload(http, PHOTOGRAPH.read_bytes(), draft="true", name="Mira two")
        assert tried.status_code == 201, tried.text
        draft = tried.json()
        assert draft["found"]["warnings"] == []
        left, top, right, bottom = draft["found"]["face_box"]
        assert 100 < left < right < 400
        assert 80 < top < bottom < 400
        views = {view: await http.get(path) for view, path in draft["preview"].items()}
        pictures = {view: Image.open(io.BytesIO(answer.content)) for view, answer in views.items()}
        assert set(pictures) == {"crop", "mask", "rest", "speaking", "moving"}
        assert all(item.format == "WEBP" for item in pictures.values())
        assert 8 < pictures["moving"].n_frames <= 30  # type: ignore[attr-defined]  # equal ones are merged
        assert views["rest"].content != views["speaking"].content
        assert await listed(http) == {}
        assert not list((tmp_path / "pictures").iterdir())  # nothing is stored before somebody agrees

        agreed = await http.post(f"/v1/portraits/{draft['id']}/consent", json=AGREED)
        assert agreed.status_code == 201, agreed.text
        portrait = agreed.json()
        again = await http.post(f"/v1/portraits/{draft['id']}/consent", json=AGREED)
        assert again.json() == portrait
        assert portrait["consent"]["given_by"] == "Eve Example"
        assert portrait["consent"]["means"] == "api"
        assert await listed(http) == {draft["id"]: "Mira two"}

        async with Peer(http, config=SessionConfig(portrait=draft["id"])) as peer:
            await peer.until(lambda: len(peer.pictures) > 10)
            assert (await http.delete(f"/v1/portraits/{draft['id']}")).status_code == 204
            seen = len(peer.pictures)
            await peer.until(lambda: len(peer.pictures) > seen + 25)  # the session goes on
        assert await listed(http) == {}
        assert not list((tmp_path / "pictures").iterdir())
        once = await upload(
            http, PHOTOGRAPH.read_bytes(), by="Eve", consent="This is me, and I agree.", name="Kept"
        )
        assert once.status_code == 201, once.text
        kept = once.json()
        assert (await http.get(kept["preview"]["rest"])).status_code == 200
        shown = (await http.get(kept["picture"])).content

    async with start(kept_config(tmp_path), own_gallery=True) as running:
        http = running.http
        assert await listed(http) == {kept["id"]: "Kept"}
        assert (await http.get(kept["picture"])).content == shown  # the same portrait, bit for bit
        one = (await http.get(f"/v1/portraits/{kept['id']}")).json()
        assert {key: one[key] for key in ("consent", "sha256", "found")} == {
            key: kept[key] for key in ("consent", "sha256", "found")
        }
        assert (await http.get("/v1/server")).json()["uploads"] == {"kept": True, "problem": None}
        records = (await http.get("/v1/consents")).json()["consents"]
        assert [record["given_by"] for record in records] == ["Eve Example", "Eve"]
        assert records[0]["removed_at"] is not None
        assert records[1]["removed_at"] is None
        assert "address" not in json.dumps(records)


async def test_without_consent_no_path_leads_to_a_picture() -> None:
    ready = asyncio.Event()
    app = create_app(quiet_config(), gallery=some_gallery(None), on_ready=lambda _: ready.set())
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", ws="websockets-sansio")
    )
    server.install_signal_handlers = lambda: None  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(60):
            await ready.wait()
            while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
                await asyncio.sleep(0.01)
        place = f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        async with httpx.AsyncClient(base_url=f"http://{place}") as http:
            draft = (await upload(http, picture(), draft="yes")).json()["id"]
            sdp = {"Content-Type": "application/sdp"}
            for answer in (
                await http.post(f"/v1/sessions?portrait={draft}", content="v=0\r\n", headers=sdp),
                await http.get(f"/v1/portraits/{draft}/thumbnail"),
                await http.get(f"/v1/portraits/{draft}/picture"),
                await http.get(f"/v1/portraits/{draft}"),
                await http.patch(f"/v1/portraits/{draft}", json={"name": "x"}),
            ):
                check(answer, 403, "consent_missing", "agreed")
            async with websockets.connect(f"ws://{place}/v1/sessions/ws") as socket:
                await socket.send(SessionConfig(portrait=draft).to_json())
                assert json.loads(await socket.recv())["code"] == "consent_missing"
            consent = f"/v1/portraits/{draft}/consent"
            check(await http.post(consent, json={}), 400, "consent_missing")
            check(
                await http.post(consent, json={"statement": "1", "by": " "}), 400, "consent_missing", "name"
            )
            check(await http.post(consent, json={"statement": "0", "by": "Eve"}), 400, "consent_unknown")
            check(await http.post(consent, json={"agree": True}), 400, "bad_request", "agree")
            check(await http.post(consent, content=b"{"), 400, "bad_request", "JSON")
            assert draft not in await listed(http)
            unknown = await http.post("/v1/portraits/up-0/consent", json=AGREED)
            check(unknown, 404, "draft_not_found", "15 minutes")
            assert (await http.delete(f"/v1/portraits/{draft}")).status_code == 204  # discarded
            check(await http.post(consent, json=AGREED), 404, "draft_not_found")
    finally:
        server.should_exit = True
        await task


async def test_uploads_are_private_where_there_is_a_token(tmp_path: Path) -> None:
    config = dataclasses.replace(quiet_config(), security=SecurityConfig(token="secret-word"))
    gallery = some_gallery(tmp_path)
    async with light(gallery, config) as http:
        check(await upload(http, picture(), draft="1"), 401, "unauthorized")
        http.headers["Authorization"] = "Bearer secret-word"
        draft = (await upload(http, picture(), draft="1")).json()
        mine = (await upload(http, picture(), **AGREED)).json()
        paths = [f"/v1/portraits/{mine['id']}", mine["thumbnail"], mine["picture"], "/v1/consents"]
        paths += draft["preview"].values()
        for path in paths:
            answer = await http.get(path)
            assert answer.status_code == 200, path
            if not path.endswith((mine["id"], "consents")):
                assert "no-store" in answer.headers["Cache-Control"]
        assert mine["id"] in await listed(http)
        del http.headers["Authorization"]
        for path in paths:
            check(await http.get(path), 401, "unauthorized")
        assert await listed(http) == {}
        assert (await http.get("/v1/portraits/ada/thumbnail")).status_code == 200
        assert (await http.get("/v1/portraits/ada")).json()["origin"] == "drawn"
        check(await http.get("/v1/portraits", headers={"Authorization": "Bearer wrong"}), 401, "unauthorized")
        for answer in (
            await http.post(f"/v1/portraits/{draft['id']}/consent", json=AGREED),
            await http.patch(f"/v1/portraits/{mine['id']}", json={"name": "x"}),
            await http.delete(f"/v1/portraits/{mine['id']}"),
        ):
            check(answer, 401, "unauthorized")


async def test_a_foreign_page_cannot_agree_for_somebody() -> None:
    async with light(some_gallery(None)) as http:
        draft = (await upload(http, picture(), draft="1")).json()["id"]
        foreign = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
        consent = f"/v1/portraits/{draft}/consent"
        check(await http.post(consent, json=AGREED, headers=foreign), 403, "forbidden", "elsewhere.example")
        form = {"picture": ("eve.png", picture(), "image/png")}
        check(await http.post("/v1/portraits", files=form, data=AGREED, headers=foreign), 403, "forbidden")
        check(await http.delete(f"/v1/portraits/{draft}", headers=foreign), 403, "forbidden")
        own = {"Origin": "http://testserver"}
        assert (await http.post(consent, json=AGREED, headers=own)).status_code == 201


async def test_names_and_order_are_kept(tmp_path: Path) -> None:
    async with light(some_gallery(tmp_path)) as http:
        ids = [(await upload(http, picture(), name=name, **AGREED)).json()["id"] for name in "abc"]
        renamed = await http.patch(f"/v1/portraits/{ids[0]}", json={"name": "  New\n name "})
        assert renamed.json()["name"] == "New name"
        moved = await http.patch(f"/v1/portraits/{ids[2]}", json={"position": 0})
        assert moved.status_code == 200
        assert list(await listed(http)) == [ids[2], ids[0], ids[1]]
        await http.patch(f"/v1/portraits/{ids[2]}", json={"position": 99})
        check(await http.patch(f"/v1/portraits/{ids[0]}", json={"name": ""}), 400, "bad_name", "60")
        check(await http.patch(f"/v1/portraits/{ids[0]}", json={"name": 3}), 400, "bad_request", "text")
        check(await http.patch(f"/v1/portraits/{ids[0]}", json={"position": True}), 400, "bad_request")
        check(await http.patch("/v1/portraits/ada", json={"name": "Eva"}), 403, "forbidden", "product")
        check(await http.patch("/v1/portraits/nobody", json={"name": "x"}), 404, "portrait_not_found")
    gallery = some_gallery(tmp_path)
    await gallery.load_kept()
    async with light(gallery) as http:
        assert await listed(http) == {ids[0]: "New name", ids[1]: "b", ids[2]: "c"}
        assert list(await listed(http)) == [ids[0], ids[1], ids[2]]


async def test_the_number_of_portraits_is_limited(tmp_path: Path) -> None:
    gallery = some_gallery(tmp_path, max_uploads=3)
    async with light(gallery) as http:
        drafts = [(await upload(http, picture(), draft="1")).json()["id"] for _ in range(5)]
        answers = await asyncio.gather(
            *(http.post(f"/v1/portraits/{draft}/consent", json=AGREED) for draft in drafts)
        )
        assert sorted(answer.status_code for answer in answers) == [201, 201, 201, 503, 503]
        check(
            next(answer for answer in answers if answer.status_code == 503), 503, "gallery_full", "delete one"
        )
        check(await upload(http, picture(), draft="1"), 503, "gallery_full")
        one, *_ = await listed(http)
        await http.delete(f"/v1/portraits/{one}")
        assert (await upload(http, picture(), **AGREED)).status_code == 201
        assert len(await listed(http)) == 3


async def test_how_far_a_preparation_is_can_be_asked(tmp_path: Path) -> None:
    gallery, told = some_gallery(None), asyncio.Event()
    release, warmed = asyncio.Event(), asyncio.Event()

    async def slow(data: bytes, *, name: str, progress: Callable[[float], None]) -> object:
        progress(0.4)
        told.set()
        await release.wait()
        progress(1.0)
        return await prepare_upload(data, name=name)

    async def warm_up() -> None:
        warmed.set()

    gallery._prepare_upload = slow  # type: ignore[assignment]
    gallery._warm_up = warm_up
    async with light(gallery) as http, asyncio.timeout(20):
        begun = await http.post("/v1/preparations")
        assert begun.status_code == 201
        await warmed.wait()
        place, preparation = begun.headers["Location"], begun.json()["id"]
        assert (await http.get(place)).json() == {"id": preparation, "share": 0.0}
        sending = asyncio.create_task(upload(http, picture(), draft="1", preparation=preparation))
        await told.wait()
        assert (await http.get(place)).json()["share"] == 0.4
        release.set()
        assert (await sending).status_code == 201
        assert (await http.get(place)).json()["share"] == 1.0
        check(await http.get("/v1/preparations/none"), 404, "preparation_not_found", "No such picture")


async def test_too_much_at_once_is_refused(tmp_path: Path) -> None:
    gallery = some_gallery(None)
    release = asyncio.Event()

    async def slow(data: bytes, *, name: str, progress: object) -> object:
        await release.wait()
        return await prepare_upload(data, name=name)

    gallery._prepare_upload = slow  # type: ignore[assignment]
    async with light(gallery) as http:
        waiting = [asyncio.create_task(upload(http, picture(), draft="1")) for _ in range(4)]
        async with asyncio.timeout(20):
            while gallery._preparing < len(waiting):  # noqa: ASYNC110 - a test polls
                await asyncio.sleep(0.01)
        check(await upload(http, picture(), draft="1"), 503, "busy", "again")
        release.set()
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {201}
        first, *others = [
            (await upload(http, picture(), draft="1")).json()["preview"]["crop"] for _ in range(9)
        ]
        check(await http.get(first), 404, "draft_not_found")  # only the newest are remembered
        assert all([(await http.get(path)).status_code == 200 for path in others])


async def test_missing_changed_and_unreadable_files_are_reported(tmp_path: Path) -> None:
    async with light(some_gallery(tmp_path)) as http:
        ids = [
            (await upload(http, picture(level=level), name=f"P{level}", **AGREED)).json()["id"]
            for level in (9, 99, 199)
        ]
    (tmp_path / "pictures" / f"{ids[0]}.jpg").unlink()
    (tmp_path / "pictures" / f"{ids[1]}.jpg").write_bytes(picture(level=1))
    (tmp_path / "thumbnails" / f"{ids[2]}.jpg").unlink()
    gallery = some_gallery(tmp_path)
    await gallery.load_kept()
    async with light(gallery) as http:
        body = (await http.get("/v1/portraits")).json()
        assert [item["id"] for item in body["portraits"]] == ["ada", ids[2]]
        problems = {item["id"]: item["problem"] for item in body["unusable"]}
        assert "is missing" in problems[ids[0]]
        assert "not the one to which consent was given" in problems[ids[1]]
        assert (await http.get(body["unusable"][0]["thumbnail"])).status_code == 200
        check(await http.get(f"/v1/portraits/{ids[0]}/picture"), 404, "portrait_unusable", "P9", "delete")
        assert (tmp_path / "thumbnails" / f"{ids[2]}.jpg").exists()  # made again
        for portrait_id in ids[:2]:
            assert (await http.delete(f"/v1/portraits/{portrait_id}")).status_code == 204
        assert (await http.get("/v1/portraits")).json()["unusable"] == []


async def test_a_folder_that_cannot_be_used_leaves_a_server_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "index.sqlite3").write_bytes(b"no database " * 100)
    gallery = some_gallery(tmp_path)
    await gallery.load_kept()
    async with light(gallery) as http:
        about = (await http.get("/v1/server")).json()["uploads"]
        assert about["kept"] is False
        assert "in memory only" in about["problem"]
        assert (await upload(http, picture(), **AGREED)).status_code == 201
    assert (tmp_path / "index.sqlite3").read_bytes() == b"no database " * 100
    assert not any((tmp_path / "pictures").iterdir())


async def test_a_full_disk_is_told_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with light(some_gallery(tmp_path)) as http:
        draft = (await upload(http, picture(), draft="1")).json()["id"]

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("stream.portraits.picture_files.os.fsync", full)
            answer = await http.post(f"/v1/portraits/{draft}/consent", json=AGREED)
        check(answer, 503, "not_stored", "No space left")
        assert await listed(http) == {}
        assert (await http.post(f"/v1/portraits/{draft}/consent", json=AGREED)).status_code == 201


async def test_transparency_is_kept_in_the_stored_file(tmp_path: Path) -> None:
    from PIL import Image as Pillow

    clear = Pillow.new("RGBA", (64, 64), (200, 10, 10, 128))
    out = io.BytesIO()
    clear.save(out, "PNG")
    async with light(some_gallery(tmp_path)) as http:
        portrait = (await upload(http, out.getvalue(), **AGREED)).json()
    assert portrait["found"]["transparent"] is True
    (stored,) = (tmp_path / "pictures").iterdir()
    with Pillow.open(stored) as kept:
        assert (kept.format, kept.mode, kept.getpixel((5, 5))) == ("PNG", "RGBA", (200, 10, 10, 128))


async def test_too_large_a_form_is_refused_before_it_is_read(tmp_path: Path) -> None:
    limits = LimitsConfig(portrait_bytes=10_000)
    async with light(some_gallery(None), dataclasses.replace(quiet_config(), limits=limits)) as http:
        check(await upload(http, bytes(200_000), draft="1"), 413, "picture_too_large", "MB")
        form = {"picture": ("a.png", picture(), "image/png"), "other": ("b.png", picture(), "image/png")}
        assert (await http.post("/v1/portraits", files=form)).status_code == 400


async def test_a_server_for_others_still_lists_its_own(running: Running) -> None:
    body = (await running.http.get("/v1/portraits")).json()
    assert body["consent_statement"]["version"] == "1"
    assert "permission" in body["consent_statement"]["text"]
