"""The Chromium to measure in: where it is, and how it is started without a screen, a microphone or a person."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--use-fake-device-for-media-stream",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--allow-loopback-in-peer-connection",
)


def microphone_flags(wav: Path, *, loop: bool = True) -> list[str]:
    """The file as an allowed microphone; over and over, or once."""
    once = "" if loop else "%noloop"
    return ["--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={wav}{once}"]


def chromium_path() -> str | None:
    """The system's Chromium, else the first that Playwright's installer left; None where there is neither."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return found
    caches = [Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", "")), Path.home() / ".cache" / "ms-playwright"]
    for folder in caches:
        for path in sorted(folder.glob("chromium-*/chrome-linux*/chrome")):
            return str(path)
    return None


@cache
def why_no_driving() -> str | None:
    """What keeps Playwright from driving a browser here, as a sentence; None where it can."""
    try:
        from playwright._impl._driver import compute_driver_executable, get_driver_env
    except ImportError:
        return "Playwright is not installed: `pip install playwright`."
    tried = subprocess.run(
        [*compute_driver_executable(), "--version"],
        capture_output=True,
        text=True,
        env=get_driver_env(),
        check=False,
    )
    if tried.returncode == 0:
        return None
    remedy = "; `apt install libatomic1` brings it" if "libatomic" in tried.stderr else ""
    return f"Playwright's driver does not start: {tried.stderr.strip().splitlines()[-1]}{remedy}."
