"""The command line finds, describes and runs its subcommands."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from client.cli import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_has_arguments_and_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(COMMANDS[name][0])
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    assert callable(module.run)
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"talkalong {name}" in capsys.readouterr().out


def test_an_unknown_subcommand_is_named_and_the_known_ones_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sing"]) == 2
    said = capsys.readouterr().err
    assert "no command 'sing'" in said
    assert "render" in said


def test_nothing_given_shows_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: talkalong" in capsys.readouterr().out


def test_only_the_chosen_subcommand_is_imported() -> None:
    code = "import sys, client.cli; client.cli.main(['--version']); "
    code += "print('torch' in sys.modules, 'stream' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
    assert done.stdout.startswith("talkalong ")


def test_a_files_name_may_begin_with_a_dash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-x.wav").mkdir()
    assert main(["render", "--portrait", "mira", "--audio", "-x.wav", "--out", "-o.mp4"]) == 2
    assert "-x.wav is a folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["render", "-h"])
