"""`.ci/environment`, with which `make demo` and `make test` begin: half-made environments are mended, and what a
machine lacks is one sentence. Real environments, but nothing is fetched: the project is not installed into them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci" / "environment"
BASE = getattr(sys, "_base_executable", sys.executable)  # the interpreter that environments are made with

pytestmark = pytest.mark.skipif(os.name != "posix", reason="make is for POSIX")


def environment(
    folder: Path, *, python: str = BASE, part: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), str(folder), *([part] if part else [])],
        env=os.environ | {"PYTHON": python} | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


def runs(folder: Path) -> bool:
    """Whether there is an environment of this Python with a pip that works."""
    python = folder / "bin" / "python"
    if not python.exists():
        return False
    done = subprocess.run([str(python), "-I", "-m", "pip", "--version"], capture_output=True, text=True)
    return done.returncode == 0 and str(folder) in done.stdout


def packages(folder: Path) -> Path:
    return next(folder.glob("lib/python3.*/site-packages"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that the script made; tests take copies."""
    folder = tmp_path_factory.mktemp("environment") / "whole"
    done = environment(folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "with a blank"
    shutil.copytree(whole, copy, symlinks=True)
    return copy


def test_a_whole_environment_is_left_alone_and_soon(folder: Path) -> None:
    mine = packages(folder) / "mine.py"
    mine.touch()
    begun = time.monotonic()
    done = environment(folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (
        time.monotonic() - begun < 5.0
    )  # 0.05 s on a machine with nothing else to do; making one takes far longer
    assert mine.exists()


def without_pip(folder: Path) -> None:
    shutil.rmtree(folder)
    subprocess.run([BASE, "-m", "venv", "--without-pip", str(folder)], check=True)


def interrupted(folder: Path) -> None:
    """As `python -m venv` leaves it when it is stopped while it unpacks pip."""
    shutil.rmtree(packages(folder) / "pip")


def python_gone(folder: Path) -> None:
    for name in ("python", "python3", f"python3.{sys.version_info.minor}"):
        link = folder / "bin" / name
        link.unlink(missing_ok=True)
        link.symlink_to("/opt/python-that-was-removed/bin/python3")


def no_environment(folder: Path) -> None:
    """Without its configuration it is the system's Python under another name."""
    (folder / "pyvenv.cfg").unlink()


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize("harm", [without_pip, interrupted, python_gone, no_environment, empty])
def test_a_half_made_environment_is_mended(folder: Path, harm: Callable[[Path], None]) -> None:
    harm(folder)
    assert not runs(folder)
    done = environment(folder)
    assert done.returncode == 0, done.stderr
    assert runs(folder)
    assert environment(folder).stderr == "", "and then it is whole"


def test_what_is_installed_outlives_a_lost_pip(folder: Path) -> None:
    mine = packages(folder) / "torch_for_my_processor.py"
    mine.touch()
    interrupted(folder)
    assert environment(folder).returncode == 0
    assert runs(folder)
    assert mine.exists()


def stub(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("version", ["3.14", "3.10", "3.9", "2.7", "4.0"])
def test_an_unsuitable_python_is_one_sentence(tmp_path: Path, version: str) -> None:
    python = stub(tmp_path / "python", f"echo {version}")
    alone = (
        {"PATH": f"{tmp_path}:/usr/bin:/bin"} if not shutil.which("python3.12", path="/usr/bin:/bin") else {}
    )
    done = environment(tmp_path / "new", python=python, **alone)
    assert done.returncode == 1
    assert f"is Python {version}, but Talkalong needs Python 3.11 to 3.13." in done.stderr
    assert "make demo PYTHON=" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not (tmp_path / "new").exists()


def test_a_suitable_python_beside_it_is_named(tmp_path: Path) -> None:
    python = stub(tmp_path / "python3", "echo 3.14")
    stub(tmp_path / "python3.12", "echo 3.12")
    stub(tmp_path / "python3.13", "exit 127  # as a version manager's that has none")
    done = environment(tmp_path / "new", python=python, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert "This machine has python3.12: make demo PYTHON=python3.12." in done.stderr


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "There is no "),
        ("exit 1", "is no Python that runs"),
        (f'case "$*" in *ensurepip*) exit 1 ;; esac; exec {BASE} "$@"', "apt install python3-venv"),
    ],
)
def test_what_a_machine_lacks_is_one_sentence(tmp_path: Path, script: str | None, words: str) -> None:
    python = str(tmp_path / "python") if script is None else stub(tmp_path / "python", script)
    done = environment(tmp_path / "new", python=python)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_an_environment_that_works_needs_no_other_python(folder: Path, tmp_path: Path) -> None:
    """The system's Python went on to 3.14; the environment's own is still there."""
    python = stub(tmp_path / "python", "echo 3.14")
    assert environment(folder, python=python).returncode == 0
    asked = environment(folder, python=python, PYTHON_ASKED="yes")
    assert asked.returncode == 1
    assert "is Python 3.14" in asked.stderr
    assert runs(folder)


def test_make_passes_on_the_python_that_was_asked_for() -> None:
    def planned(*words: str, **variables: str) -> str:
        inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "MAKEFLAGS")}
        done = subprocess.run(
            ["make", "-n", "demo", "VENV=elsewhere", *words],
            cwd=ROOT,
            env=inherited | variables,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert "PYTHON='python3' PYTHON_ASKED=no .ci/environment elsewhere serve" in planned()
    assert "PYTHON='python3.12' PYTHON_ASKED=yes" in planned("PYTHON=python3.12")
    assert "PYTHON='/opt/bin/python3' PYTHON_ASKED=yes" in planned(PYTHON="/opt/bin/python3")


@pytest.fixture
def project(tmp_path: Path, folder: Path) -> Path:
    """A copy of what the script reads, with an environment whose pip only notes what it is asked for."""
    root = tmp_path / "project"
    (root / ".ci").mkdir(parents=True)
    for name in (".ci/environment", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root / name)
    folder.rename(root / ".venv")
    (packages(root / ".venv") / "pip" / "__main__.py").write_text(
        "import pathlib, sys\n"
        "if sys.argv[1:] == ['--version']: sys.exit()\n"
        "if pathlib.Path('broken').exists(): sys.exit(1)\n"
        "with open('asked', 'a') as file: print(*sys.argv[1:], file=file)\n"
    )
    return root


def install(project: Path, part: str) -> tuple[int, list[str]]:
    """Exit status, and what pip was asked for."""
    done = subprocess.run(
        [str(project / ".ci" / "environment"), ".venv", part],
        env=os.environ | {"PYTHON": BASE},
        capture_output=True,
        text=True,
        timeout=120,
    )
    asked = project / "asked"
    lines = asked.read_text().splitlines() if asked.exists() else []
    asked.unlink(missing_ok=True)
    return done.returncode, [line.split()[-1] for line in lines]


def test_each_part_is_installed_once_and_again_after_a_change(project: Path, tmp_path: Path) -> None:
    assert install(project, "test") == (0, ["pip", ".[test]"])
    assert install(project, "test") == (0, [])
    assert install(project, "serve") == (0, []), "it is a part of the tests' needs"
    assert install(project, "lint") == (0, ["pip", ".[test,lint]"])
    os.utime(project / "pyproject.toml")
    assert install(project, "test") == (0, []), "a checkout changes times, not contents"
    with (project / "constraints.txt").open("a") as constraints:
        constraints.write("# changed\n")
    os.utime(project / "constraints.txt", (0, 0))
    assert install(project, "serve") == (0, ["pip", "."])
    (project / ".venv" / ".serve").write_text("")  # as older Makefiles left it
    assert install(project, "serve") == (0, ["pip", "."])
    moved = project.rename(tmp_path / "moved")
    assert install(moved, "serve") == (0, ["pip", "."]), "its scripts name the old place"


def test_an_interrupted_installation_is_taken_up_again(project: Path) -> None:
    assert install(project, "serve") == (0, ["pip", "."])
    (project / "broken").touch()
    assert install(project, "test")[0] != 0
    (project / "broken").unlink()
    place = packages(project / ".venv")
    half, whole, removed = place / "half-1.0.dist-info", place / "whole-1.0.dist-info", place / "~alf"
    for item in (half, whole, removed):
        item.mkdir()
        (item / "METADATA").touch()
    (whole / "INSTALLER").write_text("pip\n")
    assert install(project, "test") == (0, ["pip", ".[test]"])
    assert not half.exists(), "pip would take it for installed"
    assert whole.exists()
    assert not removed.exists()
