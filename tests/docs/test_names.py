"""What documents name exists: options, routes, files, modules, environment variables, links."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest
from starlette.routing import BaseRoute, Match, Mount, WebSocketRoute

from client import cli
from stream.config import LimitsConfig, ServeConfig
from stream.protocol import AUDIO_LEAD_S
from stream.server import create_app
from tests.docs.documents import DOCUMENTS, ROOT, Span, commands, links, place, prose, spans

ALL = [span for document in DOCUMENTS for span in spans(document)]
FOLDERS = tuple(
    f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and path.name not in ("build", "runs")
)
PACKAGES = ("client", "configs", "pipeline", "stream", "tests")

# Options that belong to another program than talkalong, by the words in which they stand.
FOREIGN = {"--network host": "of `docker run`"}
# Whose options a document speaks of where no command stands beside them.
OPTIONS_OF = {
    "README.md": ("render", "talk", "camera"),
    "docs/broadcast.md": ("serve",),
    "docs/camera.md": ("camera",),
    "docs/evaluation.md": ("evaluate",),
    "docs/latency.md": ("latency", "load", "bench"),
    "docs/model.md": ("benchmark",),
    "docs/portraits.md": ("talk",),
    "docs/reachability.md": ("serve", "doctor"),
    "docs/recording.md": ("talk",),
    "pipeline/weights/portrait_256/MODEL_CARD.md": ("benchmark", "evaluate"),
}
STAGES = ("autoencoder", "bundle", "motion_basis", "motion_encoder", "student", "teacher")  # CONTRIBUTING.md


def named(spans: list[Span]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("span", spans, ids=lambda span: f"{span} {span.text}")


@cache
def parser(command: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(cli.COMMANDS[command][0]).add_arguments(made)
    for action in made._actions:
        action.required = False
    return made


def understands(command: str, words: list[str]) -> bool:
    try:
        return not parser(command).parse_known_args(words)[1]
    except (argparse.ArgumentError, SystemExit):
        return False


def alternatives(text: str) -> list[list[str]]:
    """`--profile wifi|lte` says two things."""
    words = text.replace('"', "").split(" ") if '"' not in text else [text.split()[0], text.split('"')[1]]
    if "|" not in text:
        return [words]
    at = next(index for index, word in enumerate(words) if "|" in word)
    return [[*words[:at], word, *words[at + 1 :]] for word in words[at].split("|")]


OPTIONS = [
    span for span in ALL
    if re.match(r"--[a-z]", span.text) and span.document.name != "CONTRIBUTING.md" and span.text not in FOREIGN
]  # fmt: skip


@named(OPTIONS)
def test_an_option_in_a_sentence_is_one_of_its_command(span: Span) -> None:
    whose = OPTIONS_OF[str(span.document.relative_to(ROOT))]
    for words in alternatives(span.text):
        bare = len(words) == 1  # only the option is named, not its value
        assert any(
            words[0] in parser(command)._option_string_actions if bare else understands(command, words)
            for command in whose
        ), f"none of {', '.join(whose)} takes {' '.join(words)}"


def test_options_of_training_exist() -> None:
    contributing = ROOT / "CONTRIBUTING.md"
    sources = "".join(
        (ROOT / "pipeline" / "training" / f"{stage}.py").read_text(encoding="utf-8") for stage in STAGES
    )
    found = [option for span in spans(contributing) for option in re.findall(r"(?<!\S)--[a-z-]+", span.text)]
    assert found
    for option in found:
        assert f'"{option}"' in sources, option


def route_exists(method: str | None, path: str) -> bool:
    return any(matches(route, method, path) for route in routes())


@cache
def routes() -> list[BaseRoute]:
    found: list[BaseRoute] = []
    for route in create_app(ServeConfig()).routes:
        inner = getattr(route, "original_router", None)  # newer FastAPI keeps routers whole
        found += [route] if inner is None else inner.routes
    return [route for route in found if not isinstance(route, Mount)]


def matches(route: BaseRoute, method: str | None, path: str) -> bool:
    kind = "websocket" if isinstance(route, WebSocketRoute) else "http"
    method = method or next(iter(getattr(route, "methods", None) or {"GET"}))
    scope = {"type": kind, "method": method, "path": path, "root_path": "", "path_params": {}, "headers": []}
    return route.matches(scope)[0] is Match.FULL


REQUESTS = [
    span for span in ALL
    if re.match(r"((GET|POST|PATCH|DELETE|OPTIONS) )?/[a-z]", span.text) and not span.text.startswith("/dev")
]  # fmt: skip


@named(REQUESTS)
def test_a_route_exists(span: Span) -> None:
    """`/crop` after `GET /v1/portraits/ID/thumbnail` is `/v1/portraits/ID/crop`."""
    method, _, path = span.text.rpartition(" ")
    path = re.sub(r"\{\w+\}|ID|NAME|…", "x", re.split(r"[?#]", path)[0])
    whole = [path]
    if path.count("/") == 1:
        before = [other for other in REQUESTS if other.document == span.document and other.line == span.line]
        whole += [f"{re.sub('ID', 'x', other.text.split()[-1]).rpartition('/')[0]}{path}" for other in before]
    if path.endswith("/x") and "…" in span.text:  # `/v1/…`: all that lies below
        prefix = path.removesuffix("x")
        assert any(str(getattr(route, "path", "")).startswith(prefix) for route in routes())
        return
    assert any(route_exists(method or None, one) for one in whole), f"no route answers {span.text}"


def test_addresses_of_the_server_in_sentences_have_routes() -> None:
    found = [
        (place(document, number), match[1])
        for document in DOCUMENTS
        for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1)
        for match in re.finditer(r"http://localhost:8080(/[^\s`'?#]*)", line)
    ]
    assert len(found) > 8
    for where, path in found:
        path = path.replace("…", "x")
        assert path == "/" or any(
            route_exists(method, path) for method in ("GET", "POST", "PATCH", "DELETE", "OPTIONS")
        ), f"{where}: no route answers {path}"


PATHS = [
    span for span in ALL
    if span.text.startswith(FOLDERS) and " " not in span.text and not re.search(r"[*{<…]", span.text)
]  # fmt: skip


@named(PATHS)
def test_a_file_or_folder_exists(span: Span) -> None:
    assert (ROOT / span.text).exists()


def test_files_that_commands_name_exist() -> None:
    for document in DOCUMENTS:
        for command in commands(document):
            for word in command.text.split():
                if word.startswith(FOLDERS):
                    assert (ROOT / word).exists(), f"{command}: there is no {word}"


MODULES = [span for span in ALL if re.fullmatch(rf"({'|'.join(PACKAGES)})(\.[a-z_0-9]+)+", span.text)]


@named(MODULES)
def test_a_module_exists(span: Span) -> None:
    assert importlib.util.find_spec(span.text) is not None


def test_environment_variables_are_read_somewhere() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8")
        for package in ("client", "stream")
        for path in (ROOT / package).rglob("*.py")
    )
    found = {
        name for document in DOCUMENTS for name in re.findall(r"TALKALONG_[A-Z_]+", document.read_text())
    }
    assert len(found) >= 3
    for name in found:
        assert f'"{name}"' in sources, f"nothing reads {name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for line, target in links(document):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        goal = (document.parent / path) if path else document
        assert goal.exists(), f"{place(document, line)}: there is no {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", prose(goal), re.MULTILINE)
            anchors = {
                re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
            }
            assert anchor in anchors, f"{place(document, line)}: no heading makes #{anchor}"


def test_a_module_followed_by_its_folder_is_written_in_one_piece() -> None:
    """A span of code that a line's end cuts in two shows a blank in it."""
    for span in ALL:
        assert not re.search(r"/ \S+\.py", span.text), f"{span}: {span.text}"


# Numbers that documents repeat: where, in which words, and where they come from.
NUMBERS = (
    ("docs/recording.md", r"the (\d+) ms by which sound leaves early", round(1_000 * AUDIO_LEAD_S)),
    ("docs/portraits.md", r"`limits\.uploaded_portraits` \((\d+)\)", LimitsConfig().uploaded_portraits),
    ("docs/broadcast.md", r"more than (\d+) kB of SDP", LimitsConfig().sdp_bytes // 1024),
)


@pytest.mark.parametrize(("document", "words", "value"), NUMBERS, ids=lambda value: str(value)[:24])
def test_a_number_is_the_one_of_the_code(document: str, words: str, value: int) -> None:
    found = re.search(words, (ROOT / document).read_text(encoding="utf-8"))
    assert found is not None, "the sentence is not there any more"
    assert int(found[1]) == value
