"""The Markdown files of this checkout as a reader meets them: fenced blocks, commands, spans of code, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODEL_CARD = ROOT / "pipeline" / "weights" / "portrait_256" / "MODEL_CARD.md"
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", MODEL_CARD, *sorted((ROOT / "docs").glob("*.md")))
FENCE = "```"
PROGRAMS = (
    "apt", "apt-get", "brew", "caddy", "curl", "docker", "ffmpeg", "git", "gst-launch-1.0", "make", "nginx", "npm",
    "npx", "openssl", "pip", "playwright", "python", "python3", "ruff", "sudo", "talkalong", "uv", "uvx", "whipsink",
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A fenced block; `language` is what stands behind its fence, "" for commands."""

    document: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return place(self.document, self.line)


@dataclass(frozen=True)
class Span:
    """`code` within a sentence."""

    document: Path
    line: int
    text: str

    def __str__(self) -> str:
        return place(self.document, self.line)


@dataclass(frozen=True)
class Command:
    """One command as it stands in a document, without its trailing comment."""

    document: Path
    line: int
    text: str
    remark: str = ""

    def __str__(self) -> str:
        return f"{place(self.document, self.line)} {self.text[:60]}"

    @property
    def whole(self) -> str:
        """With all options that its synopsis has in brackets."""
        return re.sub(r"\[(--[^\]]*)\]", r"\1", self.text)


def place(document: Path, line: int) -> str:
    return f"{document.relative_to(ROOT)}:{line}"


@cache
def blocks(document: Path) -> tuple[Block, ...]:
    found, inside = [], None
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith(FENCE):
            if inside is None:
                inside = (number, line.strip().removeprefix(FENCE).strip(), [])
            else:
                found.append(Block(document, inside[0], inside[1], "\n".join(inside[2]) + "\n"))
                inside = None
        elif inside is not None:
            inside[2].append(line)
    assert inside is None, f"{document}: the block of line {inside[0]} is not closed"
    return tuple(found)


@cache
def prose(document: Path) -> str:
    """The text with its blocks blanked, so that lines keep their numbers."""
    lines = document.read_text(encoding="utf-8").splitlines()
    for block in blocks(document):
        for index in range(block.line - 1, block.line + block.text.count("\n") + 1):
            lines[index] = ""
    return "\n".join(lines)


@cache
def spans(document: Path) -> tuple[Span, ...]:
    text = prose(document)
    return tuple(
        Span(document, text.count("\n", 0, match.start()) + 1, match[2].replace("\n", " ").strip())
        for match in re.finditer(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", text, re.DOTALL)
    )


def links(document: Path) -> Iterator[tuple[int, str]]:
    """(line, target) of each link and picture."""
    text = prose(document)
    for match in re.finditer(r"\]\(([^)\s]+)\)", text):
        yield text.count("\n", 0, match.start()) + 1, match[1]


def block_commands(block: Block) -> Iterator[Command]:
    """Its lines, continued ones joined; a comment behind a command is its remark, also on the lines that follow."""
    found: list[Command] = []
    parts: list[str] = []
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if not parts and (line.startswith("#") or not line.strip()):
            if line.startswith("#") and found:
                last = found[-1]
                remark = f"{last.remark}\n{line[1:].strip()}".strip()
                found[-1] = replace(last, remark=remark)
            continue
        parts.append(line.removesuffix("\\").strip())
        if line.endswith("\\"):
            continue
        text, _, remark = " ".join(parts).partition("  # ")
        found.append(Command(block.document, number - len(parts) + 1, text.strip(), remark.strip()))
        parts = []
    return iter(found)


def is_command(text: str) -> bool:
    """A program with something to do. `talkalong serve` and `python -m module`, without options, only name it."""
    words = text.split()
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    if not words or words[0].rpartition("/")[2] not in PROGRAMS:
        return False
    if words[:2] == ["python", "-m"]:
        return len(words) > 3
    return len(words) > 2 or (len(words) == 2 and words[0] != "talkalong")


def commands(document: Path) -> list[Command]:
    """All of a document's commands, in blocks and in sentences, in their order."""
    found = [
        command for block in blocks(document) if block.language == "" for command in block_commands(block)
    ]
    found += [Command(document, span.line, span.text) for span in spans(document) if is_command(span.text)]
    return sorted(found, key=lambda command: command.line)
