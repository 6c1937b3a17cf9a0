"""The rest of `talkalong devices`: the sound server's own names, and virtual cameras."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from client import pulse
from client.errors import DeviceError
from client.virtual_camera import NO_CAMERA
from client.virtual_microphone import SINK, SOURCE, real_microphone

V4L2 = Path("/sys/devices/virtual/video4linux")
OBS_MAC = Path("/Applications/OBS.app")
OBS_WINDOWS = r"SOFTWARE\Classes\CLSID\{A3FCE0F5-3493-419F-958A-ABA1250EC20B}"


@dataclass(frozen=True, kw_only=True)
class CameraDevice:
    """device: what `--camera-device` takes; title: what call apps list."""

    device: str
    title: str


def has_sound_server() -> bool:
    return sys.platform.startswith("linux") and pulse.available()


def sound_server_listing() -> str:
    """What `talkalong camera` calls sound devices on Linux; "" without a sound server."""
    if not has_sound_server():
        return ""
    try:
        microphone: str | None = real_microphone(None)
    except DeviceError:
        microphone = None
    lines = ["For `talkalong camera --microphone` and `--speaker`, from the sound server:"]
    for kind, option, used in (("sources", "microphone", microphone), ("sinks", "speaker", SINK)):
        for device in pulse.devices(kind):
            if device.monitor:
                continue
            notes = ["virtual"] if device.virtual else []
            if device.name in (SINK, SOURCE):
                notes.append("made by `talkalong camera`")
            mark = ">" if device.name == used else " "
            note = f"  {', '.join(notes)}" if notes else ""
            lines.append(f" {mark} {option:<10}  {device.description}  ({device.name}){note}")
    if SINK not in {device.name for device in pulse.devices("sinks")}:
        lines.append(f" > speaker     {SINK}, which `talkalong camera` makes and removes  virtual")
    return "\n".join(lines)


def cameras() -> list[CameraDevice]:
    """The virtual cameras of this machine, the one that is used first."""
    if sys.platform.startswith("linux"):
        return v4l2_cameras(V4L2)
    if sys.platform == "darwin":
        found = OBS_MAC.exists()
    else:
        found = _registered()
    return [CameraDevice(device="OBS Virtual Camera", title="OBS Virtual Camera")] if found else []


def v4l2_cameras(folder: Path) -> list[CameraDevice]:
    """Video devices that no hardware stands behind, in the order of their numbers."""
    found = [(int(path.name.removeprefix("video")), path) for path in folder.glob("video*")]
    return [
        CameraDevice(device=f"/dev/video{number}", title=(path / "name").read_text().strip())
        for number, path in sorted(found)
    ]


def camera_listing() -> str:
    found = cameras()
    lines = ["Virtual cameras:"]
    lines += [
        f" {'>' if number == 0 else ' '} {item.device}  {item.title}  virtual"
        for number, item in enumerate(found)
    ]
    if not found:
        lines.append(f"   none. {NO_CAMERA.get(sys.platform, '')} See docs/camera.md.")
    if importlib.util.find_spec("pyvirtualcam") is None:
        lines.append(
            "   The package that sends pictures to them is not installed: `.venv/bin/pip install -e '.[camera]'` in "
            "Talkalong's folder."
        )
    return "\n".join(lines)


def _registered() -> bool:
    """Whether OBS's camera is registered with Windows."""
    if sys.platform != "win32":
        return False
    import winreg

    try:
        winreg.CloseKey(winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, OBS_WINDOWS))
    except OSError:
        return False
    return True
