"""Blocks of curl are a conversation: each answer has the status that stands behind its command, and names the next
command's session or portrait."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.docs.desk import Desk
from tests.docs.documents import DOCUMENTS, Block, Command, block_commands, blocks

CURL = 'curl() { command curl -s --max-time 60 -w "\\n%{http_code}\\n" "$@"; }; '
# What a document writes for an id, and where an answer says it.
LEARNED = {
    r"6f0c…": re.compile(r"^location: /whip/(\S+)", re.IGNORECASE | re.MULTILINE),
    r"up-3f…": re.compile(r'"id":\s*"(up-[0-9a-f]+)"'),
}


def curl_blocks() -> list[Block]:
    return [
        block for document in DOCUMENTS for block in blocks(document)
        if block.language == "" and any(c.text.startswith("curl ") for c in block_commands(block))
    ]  # fmt: skip


def expected(command: Command) -> set[int]:
    said = re.match(r"\d{3}", command.remark)
    return {int(said[0])} if said else {200, 201, 204}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("block", curl_blocks(), ids=str)
def test_a_conversation_with_curl_goes_as_written(block: Block, desk: Desk) -> None:
    known: dict[str, str] = {}
    for command in block_commands(block):
        text = desk.prepare(command)
        for written, value in known.items():
            text = text.replace(written, value)
        assert "…" not in text, f"{text}: nothing before it said what stands for the dots"
        for _ in range(2 if "also the second time" in command.remark else 1):
            outcome = desk.run(CURL + text)
            status = int(outcome.said.split()[-1])
            assert status in expected(command), f"{text}\n{outcome.said}"
        for written, pattern in LEARNED.items():
            if found := pattern.search(outcome.said):
                known[written] = found[1]
        for header in re.findall(r"^([A-Z][\w-]+): ", command.remark, re.MULTILINE):
            assert re.search(rf"^{header}: ", outcome.said, re.IGNORECASE | re.MULTILINE), outcome.said
        for field in re.findall(r'"(\w+)": ', command.remark):
            assert f'"{field}":' in outcome.said, f"no {field} in {outcome.said}"
