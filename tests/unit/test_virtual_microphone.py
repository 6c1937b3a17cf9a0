"""Which devices are made, removed and listened to; the sound server is asked through `pactl`'s own words."""

from __future__ import annotations

import os

import pytest

from client import pulse, virtual_microphone
from client.errors import DeviceError
from client.virtual_microphone import SINK, SOURCE, VirtualMicrophone, real_microphone, remove_left_behind

SOURCES = """Source #0
\tState: SUSPENDED
\tName: alsa_output.pci.monitor
\tDescription: Monitor of Built-in Audio
\tMonitor of Sink: alsa_output.pci
\tFlags: DECIBEL_VOLUME LATENCY

Source #1
\tState: RUNNING
\tName: alsa_input.usb-Blue_Yeti
\tDescription: Yeti: Stereo Microphone
\tMonitor of Sink: n/a
\tFlags: HARDWARE HW_MUTE_CTRL DECIBEL_VOLUME LATENCY

Source #2
\tName: noise_filter
\tDescription: Noise-free microphone
\tMonitor of Sink: n/a
\tFlags: DECIBEL_VOLUME LATENCY

Source #3
\tName: talkalong_microphone
\tDescription: Talkalong microphone
\tMonitor of Sink: n/a
\tFlags: DECIBEL_VOLUME LATENCY
"""


class FakePactl:
    """Answers as a sound server with these modules would; remembers what it was asked to do."""

    def __init__(self, *modules: str, default_source: str = "alsa_input.usb-Blue_Yeti") -> None:
        self.modules = dict(enumerate(modules))
        self.default_source = default_source
        self.asked: list[tuple[str, ...]] = []
        self.takes_over = False
        self.fails_on: str | None = None

    def __call__(self, *words: str) -> str:
        self.asked.append(words)
        if self.fails_on is not None and self.fails_on in words:
            raise DeviceError("no such module")
        match words:
            case ("list", "short", "modules"):
                return "".join(f"{number}\t{text}\n" for number, text in self.modules.items())
            case ("list", "sources"):
                return SOURCES
            case ("info",):
                return f"Default Sink: alsa_output.pci\nDefault Source: {self.default_source}\n"
            case ("load-module", *rest):
                number = max(self.modules, default=0) + 1
                self.modules[number] = "\t".join(rest)
                if self.takes_over and SOURCE in words[2]:
                    self.default_source = SOURCE
                return f"{number}\n"
            case ("unload-module", number):
                del self.modules[int(number)]
            case ("set-default-source", name):
                self.default_source = name
        return ""


@pytest.fixture
def pactl(monkeypatch: pytest.MonkeyPatch) -> FakePactl:
    fake = FakePactl("module-native-protocol-unix\t")
    monkeypatch.setattr(pulse, "pactl", fake)
    return fake


def test_devices_are_read_with_what_they_are(pactl: FakePactl) -> None:
    found = pulse.devices("sources")
    assert [(item.name, item.virtual, item.monitor) for item in found] == [
        ("alsa_output.pci.monitor", True, True),
        ("alsa_input.usb-Blue_Yeti", False, False),
        ("noise_filter", True, False),
        (SOURCE, True, False),
    ]
    assert found[1].description == "Yeti: Stereo Microphone"


def test_the_microphone_is_made_and_removed(pactl: FakePactl) -> None:
    before = dict(pactl.modules)
    with VirtualMicrophone():
        loaded = [words for words in pactl.asked if words[0] == "load-module"]
        assert [words[1] for words in loaded] == ["module-null-sink", "module-remap-source"]
        assert f"master={SINK}.monitor" in loaded[1]
        assert all(f"'{os.getpid()}-" in " ".join(words) for words in loaded)
    assert pactl.modules == before


def test_the_default_microphone_stays_what_it_was(pactl: FakePactl) -> None:
    pactl.takes_over = True
    with VirtualMicrophone():
        assert pactl.default_source == "alsa_input.usb-Blue_Yeti"


def test_half_a_microphone_is_not_left_behind(pactl: FakePactl) -> None:
    pactl.fails_on = "module-remap-source"
    before = dict(pactl.modules)
    with pytest.raises(DeviceError), VirtualMicrophone():
        pytest.fail("there is no microphone")
    assert pactl.modules == before


def test_what_dead_runs_left_is_removed_and_the_living_respected(
    pactl: FakePactl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def owned(owner: str) -> list[str]:
        return [
            f"module-null-sink\tsink_name={SINK} sink_properties=\"talkalong.owner='{owner}'\"",
            f"module-remap-source\tsource_name={SOURCE} source_properties=\"talkalong.owner='{owner}'\"",
        ]

    parent = os.getppid()
    for owner, left in (("999999999-1", 2), (f"{parent}-1", 2)):  # no such process; its number was used again
        pactl.modules = dict(enumerate(["module-native-protocol-unix\t", *owned(owner)]))
        assert remove_left_behind() == left
        assert list(pactl.modules) == [0]
    started = virtual_microphone._started(parent)
    pactl.modules = dict(enumerate(owned(f"{parent}-{started}")))
    with pytest.raises(DeviceError, match=f"process {parent}.*--no-microphone"):
        remove_left_behind()
    assert len(pactl.modules) == 2


def test_the_speaker_never_hears_the_virtual_microphone(pactl: FakePactl) -> None:
    assert real_microphone(None) == "alsa_input.usb-Blue_Yeti"
    pactl.default_source = SOURCE
    assert real_microphone(None) == "alsa_input.usb-Blue_Yeti"
    pactl.default_source = "alsa_output.pci.monitor"
    assert real_microphone(None) == "alsa_input.usb-Blue_Yeti", "nor what the loudspeakers play"
    assert real_microphone("noise-free") == "noise_filter"
    with pytest.raises(DeviceError, match="loop"):
        real_microphone("talkalong mic")
    with pytest.raises(DeviceError, match=r"no microphone \"gramophone\".*talkalong devices"):
        real_microphone("gramophone")
