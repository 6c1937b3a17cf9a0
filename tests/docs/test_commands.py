"""Every command that a document shows does what it shows; what cannot be run has its reason in `tables`."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import subprocess
import tomllib
from concurrent.futures import Future
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from client import cli
from client.latency.bench_parts import why_no_browser
from client.terminal import status_line
from pipeline.evaluation.studies.running import chosen_studies
from tests.browser.served import has_trained_model
from tests.docs.desk import Desk, Outcome, serves, written
from tests.docs.documents import DOCUMENTS, ROOT, Command, blocks, commands, spans
from tests.docs.tables import NOT_RUN, PARSED, PLACEHOLDERS, SHORTER, SHOWN, STATUSES
from tests.loopback.sound_server import missing_programs

TESTED = {"", "python", "yaml", "nginx", "caddyfile"}  # by the tests of this folder
ALL = [command for document in DOCUMENTS for command in commands(document)]


def kind(command: Command) -> str:
    """By whom a command is tested: the functions below, and tests/docs/test_curl.py."""
    if any(row.found_in(command.text) for row in NOT_RUN):
        return "not run"
    if any(row.found_in(command.text) for row in PARSED):
        return "parsed"
    first = command.text.split()[0].rpartition("/")[2]
    return first if first in ("curl", "make", "pip") else "run"


def of_kind(wanted: str) -> list[Command]:
    return [command for command in ALL if kind(command) == wanted]


def allowed(prepared: str) -> set[int]:
    return {0}.union(*(statuses for pattern, statuses, _ in STATUSES if re.search(pattern, prepared)))


def test_the_documents_have_commands_and_every_row_of_the_tables_is_needed() -> None:
    assert len(ALL) > 60
    for row in (*NOT_RUN, *PARSED):
        assert any(row.found_in(command.whole) for command in ALL), row
    texts = [command.whole for command in (*of_kind("run"), *of_kind("curl"))]
    for change in (*PLACEHOLDERS, *SHORTER):
        changed = [change.apply(text) for text in texts]
        assert changed != texts, change
        texts = changed


@pytest.mark.parametrize("to_run", of_kind("run"), ids=str)
def test_a_command_runs_as_written(to_run: Command, desk: Desk, outcomes: dict[str, Future[Outcome]]) -> None:
    prepared = desk.prepare(to_run)
    if "--browser" in prepared and (missing := why_no_browser()):
        pytest.skip(missing)
    if re.search(r"talkalong talk|camera_process", prepared) and missing_programs():
        pytest.skip(f"PulseAudio is not installed ({', '.join(missing_programs())})")
    if "camera_process" in prepared:
        pytest.importorskip("pyvirtualcam")
    if "talkalong render" in prepared and not has_trained_model():
        pytest.skip("no trained weights in this checkout")
    outcome = outcomes[prepared].result()
    assert "Traceback" not in outcome.said, f"{prepared}\n{outcome.said}"
    assert outcome.status in allowed(prepared), f"{prepared}: {outcome.status}\n{outcome.said}"
    assert outcome.said.strip(), "it says nothing"
    for name in written(prepared):
        place = outcome.folder / name
        assert place.exists(), f"{prepared} did not write {name}: {outcome.said}"
        assert place.is_dir() or place.stat().st_size > 100


class Parsed(Exception):
    """Raised in place of what comes after the parsing."""

    def __init__(self, values: argparse.Namespace) -> None:
        self.values = values


@pytest.mark.parametrize("command", of_kind("parsed"), ids=str)
def test_the_options_of_a_long_command_are_its_own(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    values = vars(parse(command.whole.split(), monkeypatch))
    for value in values.values():
        if isinstance(value, Path) and value.parts[:1] in (("configs",), ("pipeline",)):
            assert (ROOT / value).exists(), f"there is no {value}"
    if values.get("study"):
        assert chosen_studies(values["study"])


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """What the command's own parser makes of them; SystemExit where they are none of its options."""
    original = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *args: Any, **options: Any) -> None:
        raise Parsed(original(parser, *args, **options))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    if words[0] == "talkalong":
        start, argv = cli.main, words
    else:
        assert words[:2] == ["python", "-m"]
        module = importlib.import_module(words[2])
        start, argv = module.main, words[2:]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(Parsed) as parsed:
        start()
    return parsed.value.values


@pytest.mark.parametrize("command", of_kind("make"), ids=str)
def test_make_knows_the_target_and_what_it_runs_is_documented(command: Command, desk: Desk) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", *command.text.split()[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_make_demo_serves_the_bundled_model(desk: Desk) -> None:
    """README's first command, less the installation, which made what runs this test."""
    if not has_trained_model():
        pytest.skip("no trained weights in this checkout")
    assert any(command.text == "make demo" for command in ALL)
    outcome = desk.run(
        f"make --no-print-directory -C {ROOT} -o .venv/.serve BIN={desk.programs} PORT={{port}} demo"
    )
    assert "Latency budget" in outcome.said


@pytest.mark.parametrize("command", of_kind("pip"), ids=str)
def test_pip_is_given_what_there_is(command: Command) -> None:
    """`-e '.[extra]'` of this checkout, or a package that pyproject.toml names. talkalong itself is on no index."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = "\n".join([*project["dependencies"], *chain(*project["optional-dependencies"].values())])
    words = [word.strip("'\"") for word in command.text.split() if not word.startswith("-")]
    start = words.index("install") + 1
    assert words[start:], "nothing to install"
    for word in words[start:]:
        name, _, extras = word.rstrip("]").partition("[")
        if name == ".":
            assert set(extras.split(",")) <= set(project["optional-dependencies"])
        else:
            assert re.search(rf"^{re.escape(re.split('[<>=!~]', name)[0])}\b", named, re.MULTILINE), (
                f"what is {word}?"
            )
            assert name != "talkalong", f"{word}: no index has it; write '.[{extras}]', for a checkout"


def test_commands_that_are_only_named_exist() -> None:
    for document in DOCUMENTS:
        for span in spans(document):
            if span.text.startswith("talkalong "):
                assert span.text.split()[1] in cli.COMMANDS, f"{span}: {span.text}"
            if span.text.startswith("python -m "):
                assert importlib.util.find_spec(span.text.split()[2]) is not None, f"{span}: {span.text}"


def test_a_command_is_run_unless_a_table_says_why_not() -> None:
    """A new command, whatever it is, is not passed over."""
    new = Command(DOCUMENTS[0], 1, "talkalong sing --loudly")
    assert kind(new) == "run"
    assert not serves(new.text)
    assert allowed(new.text) == {0}


def test_the_line_that_the_camera_shows_is_its_own() -> None:
    (shown,) = (
        block.text for document in DOCUMENTS for block in blocks(document) if "there, 0 here" in block.text
    )
    presentation = SimpleNamespace(sound_error_ms=1.0, missed_pictures=0, sound_rate=3e-6, sound_jumps=0)
    presenter = SimpleNamespace(
        presentation=presentation, stats={"fps_sent": 25.0, "frames_missed": 0}, connected=True
    )
    assert status_line(751.0, presenter, None, 378.0) == shown.strip()  # type: ignore[arg-type]


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    """Commands have no language behind their fence; what only is shown is listed, with its reason."""
    for document in DOCUMENTS:
        for block in blocks(document):
            if block.language == "text":
                assert any(block.text.strip().startswith(start) for start in SHOWN), f"{block} is not run"
            else:
                assert block.language in TESTED, f"{block}: nothing runs {block.language}"
    for start in SHOWN:
        assert any(start in block.text for document in DOCUMENTS for block in blocks(document)), start
