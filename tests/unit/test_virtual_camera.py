"""Pictures on the virtual camera, from before the first one on; what is missing is said in sentences."""

from __future__ import annotations

import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client import virtual_camera, virtual_devices
from client.errors import DeviceError
from client.presentation import Presentation
from client.timeline import Moment
from client.virtual_camera import Canvas, VirtualCamera
from stream.protocol import FPS


def test_a_square_portrait_stands_in_the_middle_before_its_own_backdrop() -> None:
    canvas = Canvas(320, 180, marked=False)
    picture = np.full((64, 64, 3), (200, 100, 50), np.uint8)
    placed = canvas.place(picture)
    assert placed.shape == (180, 320, 3)
    assert (placed[90, 160] == (200, 100, 50)).all()
    assert (placed[:, 65] == placed[:, 255]).all()
    assert placed[90, 10].tolist() == pytest.approx([70, 35, 17], abs=3)
    exact = np.random.default_rng(0).integers(0, 255, (180, 320, 3)).astype(np.uint8)
    assert (canvas.place(exact) == exact).all(), "a picture that fits is not touched"


@pytest.mark.parametrize("shape", [(512, 512), (300, 900), (900, 300), (2_000, 2_000)])
def test_pictures_of_any_shape_fit(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 250, np.uint8)
    placed = Canvas(320, 180, marked=False).place(picture)
    rows, columns = np.nonzero(placed.min(axis=2) > 245)
    wide, high = np.ptp(columns) + 1, np.ptp(rows) + 1
    assert wide / high == pytest.approx(shape[1] / shape[0], rel=0.03)
    assert wide == 320 or high == 180


def test_the_mark_is_legible_on_black_and_on_white() -> None:
    for level in (0, 255):
        picture = np.full((360, 640, 3), level, np.uint8)
        corner = Canvas(640, 360).place(picture)[330:, 480:]
        assert np.ptp(corner) > 200
        assert (Canvas(640, 360, marked=False).place(picture) == level).all()


class FakeCamera:
    """What pyvirtualcam.Camera offers and is used of it."""

    device = "Fake camera"

    def __init__(self, *, width: int, height: int, fps: float, device: str | None) -> None:
        self.sent: list[tuple[float, int]] = []
        self.closed = False
        self.broken: str | None = None

    def send(self, frame: np.ndarray) -> None:
        if self.broken:
            raise RuntimeError(self.broken)
        self.sent.append((time.monotonic(), int(frame[frame.shape[0] // 2, frame.shape[1] // 2, 0])))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FakeCamera]]:
    cameras: list[FakeCamera] = []

    def camera(**options: object) -> FakeCamera:
        cameras.append(FakeCamera(**options))  # type: ignore[arg-type]
        return cameras[-1]

    monkeypatch.setattr(virtual_camera, "pyvirtualcam", lambda: types.SimpleNamespace(Camera=camera))
    yield cameras
    assert all(item.closed for item in cameras)


def wait_until(condition: object) -> None:
    end = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_camera_shows_something_at_all_times(opened: list[FakeCamera]) -> None:
    presentation = Presentation()
    camera = VirtualCamera(presentation, width=64, height=64, fps=100.0, marked=False)
    try:
        sent = opened[0].sent
        wait_until(lambda: len(sent) > 5)
        assert {light for _, light in sent} == {virtual_camera.WAITING_GREY}
        camera.show(np.full((64, 64, 3), 77, np.uint8))
        wait_until(lambda: sent[-1][1] == 77)
        begun = time.monotonic()
        for index in range(5):
            picture = np.full((64, 64, 3), 100 + index, np.uint8)
            presentation.push(
                Moment(index=index, picture=picture, pcm=np.zeros(1_920, np.int16)), begun + index / FPS
            )
        wait_until(lambda: sent[-1][1] == 104)
        presentation.lose()
        count = len(sent)
        wait_until(lambda: len(sent) > count + 5)
        assert sent[-1][1] == 104, "the last picture stays"
        first = {}
        for at, light in sent:
            first.setdefault(light, at)
        assert sorted(first) == [virtual_camera.WAITING_GREY, 77, 100, 101, 102, 103, 104]
        assert first[104] - begun > 4 / FPS
    finally:
        camera.close()


def test_a_camera_that_breaks_says_so(opened: list[FakeCamera]) -> None:
    told, said = threading.Event(), []

    def report(sentence: str) -> None:
        said.append(sentence)
        told.set()

    camera = VirtualCamera(Presentation(), width=64, height=64, fps=50.0, report=report)
    opened[0].broken = "device unplugged"
    assert told.wait(5)
    camera.close()
    assert "device unplugged" in said[0]


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    original = __import__

    def broken(name: str, *args: object, **more: object) -> types.ModuleType:
        if name == "pyvirtualcam":
            raise ImportError(name)
        return original(name, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("builtins.__import__", broken)
    with pytest.raises(DeviceError, match=r"pip install -e '\.\[camera\]'.*--no-camera"):
        virtual_camera.pyvirtualcam()


def test_a_missing_device_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def camera(**_: object) -> None:
        raise RuntimeError("'v4l2loopback' backend: no device found")

    monkeypatch.setattr(virtual_camera, "pyvirtualcam", lambda: types.SimpleNamespace(Camera=camera))
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(DeviceError, match=r"modprobe v4l2loopback.*docs/camera.md"):
        VirtualCamera(Presentation(), width=64, height=64, fps=25.0)


def test_virtual_cameras_are_listed_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, title in ((12, "Second"), (2, "Talkalong camera")):
        (tmp_path / f"video{number}").mkdir()
        (tmp_path / f"video{number}" / "name").write_text(f"{title}\n")
    found = virtual_devices.v4l2_cameras(tmp_path)
    assert [(item.device, item.title) for item in found] == [
        ("/dev/video2", "Talkalong camera"),
        ("/dev/video12", "Second"),
    ]
    monkeypatch.setattr(virtual_devices, "cameras", lambda: found)
    assert " > /dev/video2  Talkalong camera  virtual" in virtual_devices.camera_listing()
    monkeypatch.setattr(virtual_devices, "cameras", list)
    assert "none" in virtual_devices.camera_listing()
