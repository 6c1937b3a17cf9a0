"""Microphone and loudspeaker of this machine, which `talkalong talk` and `talkalong camera` use."""

from __future__ import annotations

from client.devices import sound
from client.doctor.finding import Finding, ok, warning
from client.errors import DeviceError

NOT_NEEDED = "A server and the page in a browser do without"


def check() -> list[Finding]:
    try:
        module = sound()
    except DeviceError as error:
        return [warning("sound", str(error), f"{NOT_NEEDED}.")]
    try:
        devices = list(module.query_devices())
        default_input, default_output = module.default.device
    except module.PortAudioError as error:
        return [
            warning("sound", f"PortAudio cannot list the devices ({error}).", "Start PipeWire or PulseAudio.")
        ]
    by_number = {item["index"]: item["name"] for item in devices}
    microphones = [item["name"] for item in devices if item["max_input_channels"] > 0]
    speakers = [item["name"] for item in devices if item["max_output_channels"] > 0]
    figures = {"microphones": microphones, "loudspeakers": speakers}
    missing = [word for word, names in (("microphone", microphones), ("loudspeaker", speakers)) if not names]
    if missing:
        return [
            warning(
                "sound", f"PortAudio finds no {' and no '.join(missing)}.",
                f"Plug one in and start PipeWire or PulseAudio. {NOT_NEEDED}.", **figures,
            )
        ]  # fmt: skip
    chosen = [
        by_number.get(number, names[0])
        for number, names in ((default_input, microphones), (default_output, speakers))
    ]
    return [ok("sound", f"Microphone '{chosen[0]}' and loudspeaker '{chosen[1]}' are there.", **figures)]
