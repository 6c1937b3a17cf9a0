"""Configuration and messages that documents show are read by the server's own readers."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from pathlib import Path

import pytest
import yaml

from stream.config import ServeConfig, load_config
from stream.protocol import parse_client_message, recording_message
from tests.docs.documents import DOCUMENTS, Block, Span, blocks, spans

YAML = [block for document in DOCUMENTS for block in blocks(document) if block.language == "yaml"]
SECTIONS = typing.get_type_hints(ServeConfig)
ALL = [span for document in DOCUMENTS for span in spans(document)]
# `ice.policy: relay`: a key of a section, perhaps with a value.
KEYS = [span for span in ALL if re.fullmatch(rf"({'|'.join(SECTIONS)})\.[a-z_0-9]+(: .*)?", span.text)]
MESSAGES = [span for span in ALL if span.text.startswith('{"type": ')]


def test_documents_show_configuration() -> None:
    assert len(YAML) >= 4
    assert len(KEYS) >= 8
    assert len(MESSAGES) >= 3


@pytest.mark.parametrize("block", YAML, ids=str)
def test_a_configuration_is_read(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(block.text)
    config = load_config(path)
    for section, values in yaml.safe_load(block.text).items():
        for key in values:
            assert hasattr(getattr(config, section), key)


@pytest.mark.parametrize("span", KEYS, ids=lambda span: f"{span} {span.text}")
def test_a_key_exists(span: Span, tmp_path: Path) -> None:
    section, _, rest = span.text.partition(".")
    key, _, value = rest.partition(": ")
    assert key in {field.name for field in dataclasses.fields(SECTIONS[section])}
    if value:
        values = {"servers": [{"urls": "turn:turn.example.net", "secret": "s"}]} if section == "ice" else {}
        path = tmp_path / "serve.yaml"
        path.write_text(yaml.safe_dump({section: values | yaml.safe_load(f"{key}: {value}")}))
        load_config(path)


@pytest.mark.parametrize("span", MESSAGES, ids=str)
def test_a_message_is_what_is_sent(span: Span) -> None:
    """To the server; or, where its rest is left out by dots, from it."""
    if span.text.endswith(", ...}"):
        shown = json.loads(span.text.replace(", ...}", "}"))
        sent = json.loads(recording_message({"id": "x", "state": "recording"}))
        assert shown == {key: sent[key] for key in shown}
    else:
        parse_client_message(span.text)
