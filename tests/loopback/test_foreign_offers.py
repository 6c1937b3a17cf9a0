"""Each door takes offers of other hands: the answer has their sections in their order, and refusals are sentences."""

from __future__ import annotations

import httpx
import pytest

from tests.loopback.broadcasting import SDP, Source
from tests.loopback.conftest import Running
from tests.loopback.foreign_offers import (
    NO,
    REFUSED,
    SAFARI_VIDEO,
    WHIP,
    R,
    audio,
    data,
    h264,
    head,
    video,
)
from tests.loopback.test_refusals import check

# Words of Python and aiortc, which mean nothing to who wrote the offer.
FOREIGN_WORDS = (
    "NoneType",
    "int()",
    "unpack",
    "StopIteration",
    "description send parameters",
    "Error",
    "list",
)
DOWN, BOTH = "recvonly", "sendrecv"
SEND = "sendonly"


def blocks(sdp: str) -> tuple[list[str], list[list[str]]]:
    """The lines of the session and those of each section, "" where there are no line ends but \\n."""
    found: list[list[str]] = [[]]
    for line in sdp.replace("\ufeff", "").replace("\r\n", "\n").split("\n"):
        line = " ".join(line.split())
        if line.startswith("m="):
            found.append([])
        if line:
            found[-1].append(line)
    return found[0], found[1:]


def fate(section: list[str]) -> str:
    """What an answer says of a section: its direction, data, or rejected."""
    if section[0].split()[1] == "0":
        return NO
    directions = [
        line[2:] for line in section if line[2:] in ("sendrecv", "sendonly", "recvonly", "inactive")
    ]
    return directions[0] if directions else "data"


def values(section: list[str], name: str) -> list[str]:
    return [line.partition(":")[2].strip() for line in section if line.startswith(f"a={name}:")]


def check_answer(offer: str, answer: httpx.Response, fates: list[str]) -> list[list[str]]:
    """RFC 9429, 5.3.1, and RFC 8843, 7.3: the sections of the answer."""
    assert answer.status_code == 201, answer.text
    head_of_offer, asked = blocks(offer)
    head_of_answer, told = blocks(answer.text)
    assert [fate(section) for section in told] == fates
    accepted = []
    for wanted, given in zip(asked, told, strict=True):
        kind, _, protocol, *formats = wanted[0].split()
        answered = given[0].split()
        assert (answered[0], answered[2]) == (kind, protocol)
        mid = [value.split()[0] for value in values(wanted, "mid")]
        assert values(given, "mid") == mid
        if fate(given) == NO:
            continue
        accepted += mid
        assert set(answered[3:]) <= set(formats)
        setups = values(wanted, "setup") or values(head_of_offer, "setup") or ["actpass"]
        assert values(given, "setup") == ["passive" if setups[0] == "active" else "active"]
        assert values(given, "candidate")
        assert len(values(given, "ice-ufrag")) == len(values(given, "ice-pwd")) == 1
        assert values(given, "fingerprint")
        if kind != "m=application":
            named = [value.split()[0] for value in values(given, "rtpmap")]
            assert named == answered[3:]
            offered = values(wanted, "rtpmap")
            assert {value.lower().split("/")[0] for value in values(given, "rtpmap")} <= {
                value.lower().split("/")[0] for value in offered
            }
    groups = [value.split()[1:] for value in values(head_of_offer, "group") if value.startswith("BUNDLE")]
    shared = [[mid for mid in group if mid in accepted] for group in groups]
    assert values(head_of_answer, "group") == [" ".join(["BUNDLE", *group]) for group in shared if group]
    return told


@pytest.mark.parametrize("names", [list(WHIP)[i::4] for i in range(4)], ids="abcd")
async def test_whip_takes_offers_of_other_hands(running: Running, names: list[str]) -> None:
    for name in names:
        offer, fates = WHIP[name]
        print(name)
        for ends in ("\n", "\r\n", "\r"):
            answer = await running.http.post("/whip", content=offer.replace("\n", ends).encode(), headers=SDP)
            check_answer(offer, answer, fates)
            assert (await running.http.delete(answer.headers["Location"])).status_code == 200
    assert not running.server.sessions


async def test_what_whip_refuses_is_said_in_words_of_the_offer(running: Running) -> None:
    for name, (offer, words) in REFUSED.items():
        print(name)
        refused = await running.http.post("/whip", content=offer, headers=SDP)
        check(refused, 400, "bad_sdp", *words)
        assert not [word for word in FOREIGN_WORDS if word in refused.json()["error"]["message"]]
    for offer, code in (
        (head("1") + video(), "bad_sections"),
        (head("0") + audio(port=0), "bad_sections"),
        (head("0") + audio(direction="inactive"), "bad_direction"),
    ):
        check(await running.http.post("/whip", content=offer, headers=SDP), 422, code, "audio")
    assert not running.server.sessions
    assert running.server.guard._addresses.total() == 0


# What `/v1/sessions` takes: sound up and down, pictures down.
TALK = {
    "as the page": (head() + audio(direction=BOTH) + video("VP8/90000", "", direction=DOWN), [BOTH, SEND]),
    "pictures first": (head("1 0") + video(direction=DOWN) + audio(direction=BOTH), [SEND, BOTH]),
    "high alone": (head() + audio(direction=BOTH) + video(fmtp=h264("640c1f"), direction=DOWN), [BOTH, SEND]),
    "no fmtp": (head() + audio(direction=BOTH) + video(fmtp="", direction=DOWN), [BOTH, SEND]),
    "safari": (head() + audio(direction=BOTH) + SAFARI_VIDEO, [BOTH, SEND]),
    "rejected before": (
        head("1 2") + audio(port=0) + audio(mid="1", direction=BOTH) + video(mid="2", direction=DOWN),
        [NO, BOTH, SEND],
    ),
    "a camera beside": (
        head("0 1 3") + audio(direction=BOTH) + video(mid="1") + video(mid="3", direction=DOWN), [BOTH, NO, SEND]
    ),
    "with data": (head("0 1 2") + audio(direction=BOTH) + video(direction=DOWN) + data(), [BOTH, SEND, "data"]),
    "data first": (head("2 0 1") + data() + audio(direction=BOTH) + video(direction=DOWN), ["data", BOTH, SEND]),
    "no bundle": (head("") + audio(direction=BOTH) + video(direction=DOWN), [BOTH, SEND]),
    "audio listens, another speaks": (
        head("0 1 2") + audio(direction=DOWN) + audio(mid="1") + video(mid="2", direction=DOWN), [NO, R, SEND]
    ),
    "vad, text": (
        head() + audio("a=extmap:1 urn:x vad=on", direction=BOTH) + video(direction=DOWN)
        + video("t140/1000", "", mid="7").replace("m=video", "m=text"), [BOTH, SEND, NO]
    ),
}  # fmt: skip


async def test_a_session_takes_offers_of_other_hands(running: Running) -> None:
    for name, (offer, fates) in TALK.items():
        print(name)
        answer = await running.http.post("/v1/sessions", content=offer, headers=SDP)
        told = check_answer(offer, answer, fates)
        pictures = next(part for part in told if part[0].startswith("m=video") and fate(part) == SEND)
        stats = await running.http.get(f"{answer.headers['Location']}/stats")
        codec = values(pictures, "rtpmap")[0].split()[1].split("/")[0]
        assert stats.json()["codec"] == codec
        asked = next(
            part for part in blocks(offer)[1] if part[0].startswith("m=video") and "a=recvonly" in part
        )
        if name == "high alone":  # its decoder is told of the profile that it asked for
            assert values(pictures, "fmtp") == values(asked, "fmtp")
        if name == "safari":
            assert pictures[0].split()[3] == "98"
        await running.http.delete(answer.headers["Location"])


async def test_what_a_session_refuses_is_said_in_words_of_the_offer(running: Running) -> None:
    post = running.http.post
    av1 = head() + audio(direction=BOTH) + video("AV1/90000", "", direction=DOWN)
    check(await post("/v1/sessions", content=av1, headers=SDP), 400, "bad_sdp", "AV1", "H.264 or VP8")
    cut = (
        head("0 1 2") + video("VP8/90000", "", direction=DOWN) + data()
    )  # the audio cut out, its mid left in the bundle
    for address in ("/v1/sessions", "/whip"):
        refused = await post(address, content=cut, headers=SDP)
        assert refused.status_code in (400, 422)
        assert "audio" in refused.json()["error"]["message"]
    silent = head("") + "m=audio 0 UDP/TLS/RTP/SAVPF 0\n" + video(direction=DOWN)
    check(await post("/v1/sessions", content=silent, headers=SDP), 400, "bad_sdp", "no audio section")
    assert not running.server.sessions
    assert running.server.guard._addresses.total() == 0


WATCH = {
    "both": (head() + audio(direction=DOWN) + video(direction=DOWN), [SEND, SEND]),
    "sound": (head("0") + audio(direction=DOWN), [SEND]),
    "pictures": (head("1") + SAFARI_VIDEO, [SEND]),
    "high alone": (head("1") + video(fmtp=h264("4d0028"), direction=DOWN), [SEND]),
    "two of each": (
        head("0 1 2 3") + audio(direction=DOWN) + audio(mid="2", direction=DOWN) + video(direction=DOWN)
        + video(mid="3", direction=DOWN), [SEND, NO, SEND, NO]
    ),
    "rejected sound": (head("1") + audio(port=0) + video(direction=DOWN), [NO, SEND]),
    "one that speaks beside": (head() + audio() + video(direction=DOWN), [NO, SEND]),
    "odd": (
        "\n" + head("0", "a=") + audio("a=ssrc:1", "a=extmap:1 urn:x vad=on", "a=fmtp:9 x", direction=DOWN), [SEND]
    ),
}  # fmt: skip


async def test_whep_takes_offers_of_other_hands(running: Running) -> None:
    async with Source(running.http, query="?stream=s"):
        for name, (offer, fates) in WATCH.items():
            print(name)
            answer = await running.http.post("/whep/s", content=offer, headers=SDP)
            check_answer(offer, answer, fates)
            assert (await running.http.delete(answer.headers["Location"])).status_code == 200
        pcmu = head("0") + audio(formats="0", rtpmap="0 PCMU/8000", fmtp="", direction=DOWN)
        check(await running.http.post("/whep/s", content=pcmu, headers=SDP), 400, "bad_sdp", "PCMU", "Opus")
        none = head("0 1 2") + data()
        check(await running.http.post("/whep/s", content=none, headers=SDP), 422, "bad_sections", "media")
        assert not running.server.audience.viewers


async def test_the_picture_of_a_source_is_answered_in_its_own_codec(running: Running) -> None:
    for codec, fmtp in (("AV1/90000", "profile=0"), ("H264/90000", h264("64001f")), ("H265/90000", "")):
        offer = head() + audio() + video(codec, fmtp)
        answer = await running.http.post("/whip", content=offer, headers=SDP)
        picture = check_answer(offer, answer, [R, R])[1]
        assert values(picture, "rtpmap") == [f"96 {codec}"]
        assert values(picture, "fmtp") == ([f"96 {fmtp}"] if fmtp else [])
