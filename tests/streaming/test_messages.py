"""Every message and every configuration file; what is wrong is said in a sentence."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from stream.config import ServeConfig, load_config
from stream.engine_messages import Close, Skipped, ToModel, Window
from stream.errors import ConfigError
from stream.protocol import (
    ControlValues,
    EncodedFrame,
    LatencyBudget,
    Ping,
    ProtocolError,
    SessionConfig,
    SetControls,
    controls_message,
    parse_client_message,
    parse_session_config,
)
from stream.wire import Unpacker, pack

CONFIGS = sorted(Path("configs/serve").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_load(path: Path) -> None:
    assert isinstance(load_config(path), ServeConfig)


def test_there_are_three_shipped_configurations() -> None:
    assert {path.stem for path in CONFIGS} >= {"default", "low_latency", "gpu"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("media: {hop_framez: 2}", "unknown key media.hop_framez"),
        ("medya: {}", "unknown key medya"),
        ("network: {port: eighty}", "network.port is 'eighty', but must be int"),
        ("network: 3", "network must hold keys and values"),
        ("ice: {servers: [{url: 'stun:x'}]}", "unknown key ice.servers[0].url"),
        ("ice: {servers: stun}", "ice.servers must be a list"),
        ("limits: {sessions: true}", "limits.sessions is True, but must be int"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_configuration_errors_name_key_and_file(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


def test_numbers_and_nested_lists_are_read(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text("media: {margin_ms: 5, step_allowance_ms: 30}\nice: {servers: [{urls: 'stun:a:1'}]}")
    config = load_config(path)
    assert config.media.margin_ms == 5.0
    assert config.media.step_allowance_ms == 30.0
    assert config.ice.servers[0].urls == "stun:a:1"


def test_session_configuration_round_trip() -> None:
    config = SessionConfig(portrait="ada", controls=ControlValues(expressiveness=1.5), hop_frames=1, seed=7)
    assert parse_session_config(config.to_json()) == config
    assert parse_session_config("{}") == SessionConfig()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nonsense", "not valid JSON"),
        ("[1]", "is a list"),
        ('{"portrait": 3}', "portrait is 3"),
        ('{"hop_frames": 9}', "from 1 to 5"),
        ('{"hop_frames": true}', "from 1 to 5"),
        ('{"seed": -1}', "seed is -1"),
        ('{"volume": 1}', "'volume' is not part of the session configuration"),
        ('{"controls": {"head_motion": 3}}', "between 0 and 2"),
        ('{"controls": {"head_motion": NaN}}', "number between 0 and 2"),
        ('{"controls": {"gaze": -0.5}}', "between 0 and 2"),
        ('{"controls": "loud"}', "must be a JSON object"),
        ('{"format": "gif"}', 'choose "jpeg" or "h264"'),
    ],
)
def test_bad_session_configurations_are_explained(text: str, expected: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_session_config(text)
    assert expected in str(caught.value)


def test_control_messages() -> None:
    values = ControlValues(head_motion=0.25)
    assert parse_client_message(controls_message(values)) == SetControls(values=values)
    assert parse_client_message('{"type": "ping", "id": 3}') == Ping(id=3)
    for bad in (
        '{"type": "dance"}',
        '{"type": "ping", "no": 1}',
        "{",
        "x" * 5_000,
        '{"type": "controls", "x": 1}',
    ):
        with pytest.raises(ProtocolError):
            parse_client_message(bad)


def test_frames_round_trip_and_foreign_ones_are_refused() -> None:
    frame = EncodedFrame(
        format="h264", key_frame=True, index=70_000, media_time_us=2_800_000_000, data=b"abc"
    )
    assert EncodedFrame.unpack(frame.pack()) == frame
    for bad in (b"", b"TKF1", b"XXXX" + bytes(30), b"TKF1\x09" + bytes(30)):
        with pytest.raises(ProtocolError):
            EncodedFrame.unpack(bad)


def test_the_budget_adds_up() -> None:
    budget = LatencyBudget(hop_ms=80, right_context_ms=80, step_allowance_ms=30, margin_ms=10, floor_ms=65)
    assert budget.playout_delay_ms == 200
    assert budget.mouth_to_photon_ms == 265
    assert "200 ms" in budget.sentence()
    assert "265 ms" in budget.sentence()
    assert json.dumps(budget.to_dict())
    assert dataclasses.asdict(budget).keys() <= budget.to_dict().keys()


def test_the_wire_puts_messages_together_again() -> None:
    sent = [
        Window(session=str(n), index=n, deadline=n / 7, pcm=bytes(n)) if n % 2 else Close(session=str(n))
        for n in range(20)
    ]
    data = b"".join(map(pack, sent))
    unpacker = Unpacker(ToModel)
    got = [message for start in range(0, len(data), 7) for message in unpacker.push(data[start : start + 7])]
    assert got == sent
    with pytest.raises(ValueError, match="cannot be right"):
        Unpacker(ToModel).push(b"\xff\xff\xff\xff")
    with pytest.raises(ValueError, match="Skipped"):
        Unpacker(ToModel).push(pack(Skipped(session="a", index=1)))
