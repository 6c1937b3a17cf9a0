"""Each of the doctor's checks finds what is wrong, says it, and says what to do; it never breaks itself."""

from __future__ import annotations

import argparse
import asyncio
import email.utils
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aioice import stun

from client.doctor import codecs, command, conversation, ice, model, processor, serving, sound
from client.doctor.conversation import Heard
from client.doctor.finding import OK, PROBLEM, WARNING, Finding
from client.doctor.model import Speed
from client.errors import DeviceError
from client.relay import Reason, explain
from stream import pace
from tests.unit.avatar import tiny_pipeline


def one(found: list[Finding], check: str, mark: str, *words: str) -> Finding:
    """The finding of this check, which has this mark and says these words."""
    item = next(item for item in found if item.check == check)
    assert item.mark == mark, item
    for word in words:
        assert word in item.line()
    assert item.mark == OK or item.remedy.endswith((".", ").")), item
    return item


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


# --- processor ---


def test_a_quota_is_found_in_both_kinds_of_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    newer = machine(tmp_path / "v2", {"sys/fs/cgroup/cpu.max": "150000 100000\n"})
    older = machine(
        tmp_path / "v1",
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
    )
    free = machine(tmp_path / "free", {"sys/fs/cgroup/cpu.max": "max 100000\n"})
    one(processor.check(newer), "cpu", PROBLEM, "8 cores", "1.5", "--cpus=2")
    one(processor.check(older), "cpu", OK, "may use 4")
    one(processor.check(free), "cpu", OK, "without a quota")
    one(processor.check(tmp_path / "nothing"), "cpu", OK)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    one(processor.check(free), "cpu", WARNING, "one core")


def test_vector_instructions_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    plain = machine(tmp_path / "old", {"proc/cpuinfo": "flags\t\t: fpu sse2 sse4_2\n"})
    usual = machine(tmp_path / "usual", {"proc/cpuinfo": "flags\t\t: fpu avx2 fma\n"})
    wide = machine(tmp_path / "wide", {"proc/cpuinfo": "flags : avx2 avx512f avx512_bf16 amx_bf16\n"})
    one(processor.check(plain), "vectors", PROBLEM, "no AVX2")
    one(processor.check(usual), "vectors", OK, "AVX2", "faster with AVX-512")
    found = one(processor.check(wide), "vectors", OK)
    assert found.figures["vector_instructions"] == ["AVX2", "AVX-512", "bf16", "AMX"]
    one(processor.check(tmp_path / "silent"), "vectors", WARNING)


def test_a_powersave_governor_is_named_unless_the_processor_governs_itself(tmp_path: Path) -> None:
    place = "sys/devices/system/cpu/cpu0/cpufreq/scaling_"
    slow = machine(tmp_path / "a", {f"{place}governor": "powersave\n", f"{place}driver": "acpi-cpufreq\n"})
    fine = machine(tmp_path / "b", {f"{place}governor": "powersave\n", f"{place}driver": "intel_pstate\n"})
    one(processor.check(slow), "governor", WARNING, "cpupower")
    one(processor.check(fine), "governor", OK)
    assert all(item.check != "governor" for item in processor.check(tmp_path / "virtual"))


def test_other_programs_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (64.0, 0.0, 0.0))
    one(processor.check(), "load", WARNING, "64.0")
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    one(processor.check(), "load", OK)


# --- codecs, sound ---


def test_codecs_are_tried_and_a_missing_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    one(codecs.check(), "codecs", OK, "H.264 (x264), VP8 and Opus")
    monkeypatch.setitem(codecs.VIDEO, "H.264 (x264)", ("libx264_that_is_not_there", "h264"))
    found = one(codecs.check(), "codecs", PROBLEM, "H.264 (x264)", "pip install")
    assert found.figures["codecs"] == ["VP8", "Opus"]


def test_sound_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    def device(index: int, name: str, inputs: int, outputs: int) -> dict[str, Any]:
        return {"index": index, "name": name, "max_input_channels": inputs, "max_output_channels": outputs}

    devices = [device(0, "Headset", 1, 2), device(1, "Speakers", 0, 2)]
    module = SimpleNamespace(
        query_devices=lambda: devices, default=SimpleNamespace(device=(0, 1)), PortAudioError=RuntimeError
    )
    monkeypatch.setattr(sound, "sound", lambda: module)
    one(sound.check(), "sound", OK, "'Headset'", "'Speakers'")
    devices.pop(0)
    one(sound.check(), "sound", WARNING, "no microphone")

    def missing() -> None:
        raise DeviceError("PortAudio is missing.")

    monkeypatch.setattr(sound, "sound", missing)
    one(sound.check(), "sound", WARNING, "PortAudio is missing")


# --- serving ---


def outlined(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "network": {"host": "127.0.0.1", "port": 0, "certificate": None, "cors_origins": []},
        "token_required": False,
        "ice": {"port_range": [], "public_address": None, "policy": "all"},
        "candidates": [{"address": "192.0.2.7", "port": 5, "kind": "host"}],
        "candidates_problem": "",
        "ice_servers": [],
        "sessions": 2,
        "folders": [],
    }
    for name, change in changes.items():
        values[name] = {**values[name], **change} if isinstance(change, dict) else change
    return values


def test_a_taken_port_is_a_problem_and_a_free_one_is_not() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        port = other.getsockname()[1]
        one(serving.check(outlined(network={"port": port})), "http port", PROBLEM, str(port), "--port")
    one(serving.check(outlined(network={"port": port})), "http port", OK, "free")
    one(
        serving.check(outlined(network={"host": "192.0.2.250", "port": port})),
        "http port",
        PROBLEM,
        "0.0.0.0",
    )


def test_a_port_range_must_have_room_for_all_sessions() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 0))
        port = other.getsockname()[1]
        given = {"port_range": [port, port + 1]}
        item = one(
            serving.check(outlined(ice=given)), "udp ports", PROBLEM, "2 sessions need", "ice.port_range"
        )
        assert port in item.figures["taken"]
    one(
        serving.check(outlined(ice={"port_range": [port, port]}, sessions=1)), "udp ports", OK, "enough for 1"
    )
    one(serving.check(outlined()), "udp ports", OK, "ice.port_range")


def test_what_the_server_would_announce() -> None:
    one(serving.check(outlined()), "candidates", OK, "192.0.2.7 (host)")
    alone = [{"address": "127.0.0.1", "port": 5, "kind": "host"}]
    one(serving.check(outlined(candidates=alone)), "candidates", WARNING, "this machine only")
    broken = outlined(candidates=[], candidates_problem="The relay is gone.")
    one(serving.check(broken), "candidates", PROBLEM, "The relay is gone.")
    lost = outlined(ice={"public_address": "203.0.113.7"})
    one(serving.check(lost), "candidates", PROBLEM, "203.0.113.7 is not announced", "PUBLIC/PRIVATE")


def test_what_the_bind_address_means_for_browsers() -> None:
    one(serving.check(outlined()), "https", OK)
    public = serving.check(outlined(network={"host": "0.0.0.0"}))
    one(public, "https", WARNING, "--certificate")
    one(public, "token", WARNING, "TALKALONG_TOKEN")
    guarded = serving.check(
        outlined(network={"host": "0.0.0.0", "certificate": "c.pem"}, token_required=True)
    )
    one(guarded, "https", OK, "c.pem")
    assert all(item.check != "token" for item in guarded)
    relayed = serving.check(outlined(ice_servers=[{"urls": "turn:turn.example.net"}]))
    one(relayed, "token", WARNING, "and its relay")


@pytest.mark.parametrize(("free_gb", "mark"), [(0.1, PROBLEM), (2.0, WARNING), (100.0, OK)])
def test_room_on_the_disk(free_gb: float, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_gb * 1e9))
    found = serving.check(outlined(folders=[str(tmp_path / "not" / "yet")]))
    assert one(found, "disk", mark, "hours").figures["folder"] == str(tmp_path)


def test_the_configuration_is_looked_at_by_the_server_itself(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text("ice: {port_range: [51000, 51050], public_address: 203.0.113.7/127.0.0.1}")
    values, finding = serving.outline(str(path))
    assert finding.mark == OK
    assert values is not None
    assert values["ice"]["port_range"] == [51_000, 51_050]
    assert all(51_000 <= item["port"] <= 51_050 for item in values["candidates"])
    assert "203.0.113.7" in {item["address"] for item in values["candidates"]}
    path.write_text("ice: {colour: blue}")
    values, finding = serving.outline(str(path))
    assert values is None
    one([finding], "config", PROBLEM, "unknown key ice.colour")


# --- STUN and TURN ---


class StunServer(asyncio.DatagramProtocol):
    """Answers a Binding request with where it came from (RFC 8489), an Allocate with 401."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        request = stun.parse_message(data)
        binding = request.message_method == stun.Method.BINDING
        answer = stun.Message(
            message_method=request.message_method,
            message_class=stun.Class.RESPONSE if binding else stun.Class.ERROR,
            transaction_id=request.transaction_id,
        )
        if binding:
            answer.attributes["XOR-MAPPED-ADDRESS"] = addr
        else:
            answer.attributes["ERROR-CODE"] = (401, "Unauthorized")
            answer.attributes["REALM"], answer.attributes["NONCE"] = "test", b"nonce"
        self._transport.sendto(bytes(answer), addr)


async def test_ice_servers_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(StunServer, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    place = f"127.0.0.1:{port}"
    old = f"{int(time.time()) - 3_600}:x"
    new = f"{int(time.time()) + 3_600}:x"
    try:
        found = await ice.check([{"urls": f"stun:{place}"}], where="The server")
        one(found, "relay", OK, "sees this machine as 127.0.0.1:")
        turn = f"turn:{place}"
        for server, words in (
            ({"urls": turn}, ("wants credentials",)),
            (
                {"urls": turn, "username": new, "credential": "hush"},
                ("refuses the credentials", "static-auth-secret"),
            ),
            (
                {"urls": turn, "username": old, "credential": "hush"},
                ("expired 60 minutes ago", "timedatectl"),
            ),
            ({"urls": "ftp:x"}, ("'ftp:x' is not the address",)),
        ):
            item = one(await ice.check([server], where="The server"), "relay", PROBLEM, *words)
            assert "hush" not in item.line()
    finally:
        transport.close()
    monkeypatch.setattr("client.relay.TIMEOUT_S", 0.2)
    one(
        await ice.check([{"urls": f"stun:{place}"}], where="It"),
        "relay",
        PROBLEM,
        "does not answer",
        "coturn",
    )
    one(await ice.check([], where="The server"), "relay", OK, "names no STUN or TURN server")


@pytest.mark.parametrize("name", ["credentials", "expired", "room", "silent"])
async def test_the_advice_follows_from_what_happened_not_from_words(name: str) -> None:
    (found,) = await ice.check(
        [{"urls": f"turn:{name}.invalid", "username": "x", "credential": "y"}], where="It"
    )
    assert found.mark == PROBLEM
    assert found.remedy == ice.REMEDIES[Reason.UNREACHABLE], found


def test_every_reason_has_its_advice_and_its_sentence() -> None:
    assert set(ice.REMEDIES) == set(Reason)
    server = {"username": f"{int(time.time()) - 300}:x"}
    sentences = [explain("turn:host", reason, OSError("no route"), server) for reason in Reason]
    assert all(text.startswith("The ") and text.endswith(".") for text in sentences)
    assert "expired 5 minutes ago" in explain("turn:host", Reason.EXPIRED, OSError(), server)


# --- model ---


def speed(p50_ms: float, hop_ms: float) -> Speed:
    return Speed(rtf=p50_ms / hop_ms, p50_ms=p50_ms, p95_ms=1.2 * p50_ms, hop_ms=hop_ms)


def speeds(large_ms: float, small_ms: float, low_ms: float) -> dict[str, Speed]:
    return dict(zip(model.CHUNKS, (speed(large_ms, 80), speed(small_ms, 40), speed(low_ms, 40)), strict=True))


def test_the_profile_that_fits_is_recommended() -> None:
    cpu = {"cpu": "A processor", "gpu": None}
    fast, usual, slow = speeds(20, 15, 14), speeds(38, 34, 34), speeds(90, 60, 60)
    item = one(
        [model.judge(fast, cpu)], "speed", OK, "A processor", "chunks of one frame", "RTF 0.25", "as well"
    )
    assert item.figures["recommended"] == "low_latency"
    item = one([model.judge(usual, cpu)], "speed", OK, "chunks of two frames", "low_latency does not")
    assert item.figures["recommended"] == "default"
    item = one([model.judge(slow, cpu)], "speed", PROBLEM, "too slow", "GPU")
    assert item.figures["recommended"] is None
    one([model.judge(slow, cpu, busy=True)], "speed", WARNING, "other programs", "quiet")


def test_the_doctor_counts_as_the_server_does() -> None:
    assert (model.LIVE_FACTOR, model.BUSIEST) == (pace.LIVE_FACTOR, pace.BUSIEST)


def test_damaged_weights_are_found(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    one(model.check_files(str(tmp_path / "tiny")), "weights", OK, "as their checksums say")
    weights = next((tmp_path / "tiny").rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00\x01")
    one(model.check_files(str(tmp_path / "tiny")), "weights", PROBLEM, weights.name, "SHA-256")
    one(model.check_files("nobody"), "weights", PROBLEM, "no bundled model named 'nobody'")


@pytest.mark.slow
def test_the_speed_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "SECONDS", 1)
    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    section = {"name": str(tmp_path / "tiny"), "device": "cpu", "threads": 1, "steps": 1}
    figures = model._measure(section, 1, 1)
    assert isinstance(figures, dict), figures
    assert figures["config"]["hop_frames"] == 1
    assert figures["config"]["steps"] == 1
    monkeypatch.setattr(model, "_measure", lambda *_: figures)
    (found,) = model.check_speed(section)
    assert found.figures["low_latency"]["hop_ms"] == 40
    assert found.figures["default"]["p95_ms"] == figures["step_ms"]["p95"]


def test_a_model_that_does_not_run_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    section = {"name": "nobody", "device": "cpu", "threads": 1, "steps": None}
    reason = "There is no bundled model named 'nobody'."
    broken = subprocess.CompletedProcess([], 1, "", f"A warning.\n{reason}\n")
    monkeypatch.setattr(model, "_run", lambda *_: broken)
    one(model.check_speed(section), "speed", PROBLEM, reason, "talkalong benchmark")
    monkeypatch.setattr(model, "_run", lambda *_: "The model was not done within 180 s.")
    one(model.check_speed(section), "speed", PROBLEM, "not done within 180 s")


# --- a running server ---


def heard(*, fps: float = 25.0, voice: bool = True, missed: int = 0) -> Heard:
    at = [0.3 + i / fps for i in range(int(3 * fps))]
    stats = {"frames_missed": missed, "frames_due": 60, "codec": "H264"}
    return Heard(at_s=at, loudness=[9_000.0 * voice] * len(at), moved=[0.0, 5.0], stats=stats)


def test_a_conversation_is_judged_by_what_came_back() -> None:
    one([conversation.judge(heard())], "session", OK, "300 ms", "25.0 frames a second", "0 of 60", "H264")
    one([conversation.judge(heard(fps=15))], "session", WARNING, "15.0 frames a second")
    one([conversation.judge(heard(missed=6))], "session", WARNING, "6 of 60")
    one([conversation.judge(heard(voice=False))], "session", PROBLEM, "the voice did not")
    one([conversation.judge(Heard())], "session", PROBLEM, "no picture")


def test_a_wrong_clock_is_noticed() -> None:
    now = time.time()
    one(conversation._clock(email.utils.formatdate(now), now), "clock", OK, "agree")
    one(
        conversation._clock(email.utils.formatdate(now - 300), now),
        "clock",
        WARNING,
        "behind",
        "network time",
    )
    one(conversation._clock(email.utils.formatdate(now + 300), now), "clock", WARNING, "ahead")
    assert conversation._clock(None, now) == []


# --- the command ---


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_a_server_that_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    assert command.run(arguments("--server", url)) == 1
    out = capsys.readouterr().out
    assert f"Nothing answers at {url}" in out
    assert "talkalong serve" in out
    assert "1 to mend" in out


def test_json_holds_every_finding_and_a_broken_check_is_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down() -> list[Finding]:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(codecs, "check", break_down)
    monkeypatch.setattr(sound, "check", lambda: [Finding(check="sound", mark=OK, says="There is sound.")])
    monkeypatch.setattr(serving, "outline", lambda _: (None, Finding(check="config", mark=OK, says="Fine.")))
    assert command.run(arguments("--json")) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["schema"] == "talkalong-doctor/1"
    assert report["ok"] is False
    assert [item["check"] for item in report["findings"]] == ["config", "codecs", "sound"]
    assert "ZeroDivisionError: of all things" in report["findings"][1]["says"]
    monkeypatch.setattr(codecs, "check", lambda: [])
    assert command.run(arguments()) == 0
    assert "All is well." in capsys.readouterr().out
