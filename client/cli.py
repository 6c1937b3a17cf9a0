"""The `talkalong` command: finds the subcommand's module, imports only that, and runs it."""

from __future__ import annotations

import argparse
import importlib
import io
import sys
from collections.abc import Sequence

COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("stream.serve", "run the server and the page"),
    "talk": ("client.talk", "talk through a server with this machine's microphone and speaker"),
    "camera": ("client.camera", "appear in video calls: a virtual camera and a virtual microphone"),
    "render": ("pipeline.render", "make a video file from a portrait and a sound file"),
    "devices": ("client.devices", "list microphones, speakers and virtual cameras"),
    "latency": ("client.latency.command", "measure mouth to photon, of this or another server"),
    "load": ("client.latency.load", "find out how many sessions a server carries"),
    "bench": ("client.latency.bench", "measure model, media and mouth to photon, as one JSON"),
    "doctor": ("client.doctor.command", "say what works here and what to do about the rest"),
    "benchmark": ("pipeline.benchmark", "measure how fast the model runs here"),
    "evaluate": ("pipeline.evaluation.command", "measure how good a model is, with pictures"),
}


def usage() -> str:
    """The list of subcommands."""
    rows = "\n".join(f"  {name:<10} {what}" for name, (_, what) in COMMANDS.items())
    return f"usage: talkalong COMMAND [options]\n\n{rows}\n\n`talkalong COMMAND --help` says more about each."


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--audio -x.wav` as `--audio=-x.wav`: no command has options of one dash, so this is a value, a file's name."""
    joined: list[str] = []
    for argument in arguments:
        is_value = argument.startswith("-") and not argument.startswith("--") and argument != "-h"
        if is_value and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns its exit status; 2 for a command line that cannot be understood."""
    arguments = _joined(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be text
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from importlib import metadata  # slow, and seldom wanted

        print(f"talkalong {metadata.version('talkalong')}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"talkalong: there is no command '{name}'.\n\n{usage()}", file=sys.stderr)
        return 2
    try:
        return _run(name, rest)
    except KeyboardInterrupt:  # before or after the subcommand's own handling: while it loads, mostly
        return 130


def _run(name: str, arguments: list[str]) -> int:
    module_name, what = COMMANDS[name]
    module = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(prog=f"talkalong {name}", description=what[0].upper() + what[1:] + ".")
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
