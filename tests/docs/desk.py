"""Where documented commands are run: a folder with the files that they name, a PATH with this checkout's `talkalong`,
and the servers that they talk to."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tests.docs.documents import ROOT, Command
from tests.docs.tables import PLACEHOLDERS, SHORTER

LIMIT_S = 120.0
WRITTEN = re.compile(r" --(?:out|record|report) (\S+)")
READY = "Talkalong is ready: "


@dataclass(frozen=True)
class Outcome:
    status: int
    said: str
    folder: Path


class Desk:
    """`material` holds what each command finds in its folder; `words` fill the braces of the tables."""

    def __init__(
        self, folder: Path, material: Path, words: dict[str, str], environment: dict[str, str]
    ) -> None:
        self._folder, self._material, self._words = folder, material, words
        programs = folder / "programs"
        programs.mkdir()
        for name, start in (("talkalong", "-m client.cli"), ("python", ""), ("python3", "")):
            shim = programs / name
            shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" {start} "$@"\n')
            shim.chmod(0o755)
        self.programs = programs
        path = os.pathsep.join([str(programs), environment["PATH"]])
        self.environment = environment | {"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def prepare(self, command: Command) -> str:
        """The command with names replaced, and made short; its port stays open."""
        text = command.whole
        for row in (*PLACEHOLDERS, *SHORTER):
            text = row.apply(text)
        return re.sub(r"\{(\w+)\}", lambda found: self._words.get(found[1], found[0]), text)

    def folder(self) -> Path:
        """A new folder with the material."""
        number = sum(1 for _ in self._folder.iterdir())
        place = self._folder / f"desk-{number}-{time.monotonic_ns()}"
        shutil.copytree(self._material, place)
        return place

    def run(self, command: str, *, certificate: ssl.SSLContext | None = None) -> Outcome:
        """A prepared command in bash, to its end; a server's end is Ctrl-C, once it has answered."""
        folder = self.folder()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            command = command.replace("{port}", str(probe.getsockname()[1]))
        with (folder / "said.txt").open("w+") as said:
            process = subprocess.Popen(
                ["bash", "-c", command], cwd=folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=said,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                if serves(command):
                    self._visit(process, folder / "said.txt", certificate)
                    os.killpg(process.pid, signal.SIGINT)
                status = process.wait(LIMIT_S)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        return Outcome(status, (folder / "said.txt").read_text(errors="replace"), folder)

    def _visit(
        self, process: subprocess.Popen[bytes], said: Path, certificate: ssl.SSLContext | None
    ) -> None:
        """Waits until the server says where it is, and looks there."""
        end = time.monotonic() + LIMIT_S
        while READY not in said.read_text() or "Latency budget" not in said.read_text():
            assert process.poll() is None, f"the server ended: {said.read_text()}"
            assert time.monotonic() < end, f"the server did not get ready: {said.read_text()}"
            time.sleep(0.1)
        found = re.search(f"{READY}(\\S+)", said.read_text())
        assert found is not None
        context = certificate if found[1].startswith("https") else None
        for path in ("", "healthz"):
            with urllib.request.urlopen(f"{found[1]}{path}", timeout=20, context=context) as answer:
                assert answer.status == 200


def serves(command: str) -> bool:
    return re.search(r"(^| )talkalong serve|^make .*demo", command) is not None


def written(command: str) -> list[str]:
    """The files and folders that a command is told to write."""
    return WRITTEN.findall(command)
