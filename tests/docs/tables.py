"""What stands for what when a documented command is run, and what is not run, each with its reason.

A command that no row of these tables knows is run as it stands, and has to work.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """Commands in which `pattern` (a regular expression) is found."""

    pattern: str
    why: str

    def found_in(self, text: str) -> bool:
        return re.search(self.pattern, text) is not None


@dataclass(frozen=True)
class Change:
    """`pattern` becomes `instead`, in which `desk.Desk` fills the braces."""

    pattern: str
    instead: str
    why: str

    def apply(self, text: str) -> str:
        return re.sub(self.pattern, self.instead, text)


# Names that a reader replaces.
PLACEHOLDERS = (
    Change(r"https?://(localhost:8080|avatar\.example\.net)(?=[\s/'?]|$)", "{url}", "the tests' server"),
    Change(r"(--server) URL\b", r"\1 {url}", "the tests' server"),
    Change(r"http://host:8010/offer", "{reference}", "a server that speaks the JSON of aiortc's examples"),
    Change(r"http://host/whip", "{url}/whip", "the tests' server"),
    Change(r"TALKALONG_TOKEN=\.\.\.", "TALKALONG_TOKEN=a-token", "any token"),
    Change(r'--consent "\.\.\."', '--consent "Ada Miller: this is me, and I agree."', "any statement"),
    Change(r" C --key K\b", " fullchain.pem --key privkey.pem", "a certificate of the tests' own authority"),
    Change(r"--port \d+", "--port {port}", "a free port"),
    Change(
        r"^\. \.venv/bin/activate$",
        ". {environment}/bin/activate && command -v python",
        "the environment that the tests run in; asked for what it has changed, as it says nothing itself",
    ),
)

# What would take minutes, a loudspeaker, or the port 8080; also what makes a command end by itself.
SHORTER = (
    Change(r"^(talkalong (talk|camera|latency|load)(?! compare)(?!.* --server).*)$", r"\1 --server {url}",
        "8080 is a port of this machine, not of the tests"),
    Change(r"^(talkalong serve|(?:\w+=\S+ )+talkalong serve)(?!.* --port)(.*)$", r"\1\2 --port {port}",
        "8080 is a port of this machine, not of the tests"),
    Change(r"^(talkalong serve)(?!.* --config)(.*)$", r"\1\2 --config default.yaml",
        "the transport alone, with the stand-in for the model; `make demo` serves the bundled one"),
    Change(r"--config (default|low_latency)(?= |$)", r"--config \1.yaml",
        "that configuration with the stand-in for the model"),
    Change(r"^(talkalong (talk|camera)(?!.* --(seconds|audio)).*)$", r"\1 --seconds 2", "otherwise until Ctrl-C"),
    Change(r"^talkalong camera", "python {root}/tests/loopback/camera_process.py pictures.txt",
        "a camera's driver is a part of the kernel; this stands in its place"),
    Change(r"^(talkalong latency(?!.* --seconds)(?! compare).*)$", r"\1 --seconds 3", "60 s otherwise"),
    Change(r"(talkalong latency.*) --seconds \d+", r"\1 --seconds 3", "60 s otherwise"),
    Change(r"^(talkalong load)(.*?)(?: --sessions \d+ --ramp \d+)?( --server.*)$", r"\1\2 --sessions 1 --ramp 8\3",
        "four levels of 20 s otherwise"),
    Change(r"^(talkalong doctor(?!.* --server).*)$", r"\1 --quick",
        "the model's speed takes half a minute; tests/unit/test_doctor.py asks for it"),
    Change(r"^(talkalong bench\b(?! compare)).*$", r"\1 --only media --out bench.json",
        "two minutes otherwise; tests/unit/test_latency_bench.py runs the other parts"),
    Change(r"^(talkalong benchmark)(?!.* --seconds)(.*)$", r"\1\2 --seconds 1", "of sound; 20 otherwise"),
    Change(r"--device cuda", "--device cpu", "not every machine has a GPU"),
    Change(r"--batch [\d. ]*\d", "--batch 1 2", "256 sessions are for a GPU"),
    Change(r"^(talkalong benchmark)(?!.* --model)(.*)$", r"\1\2 --model {tiny}", "a small model of the same parts"),
    Change(r"--model runs/512|--model runs/portrait_512", "--model {tiny}", "a small model of the same parts"),
    Change(r"--out runs/512/benchmark.json", "--out benchmark.json", "no folder of a training"),
)  # fmt: skip

# Commands whose options only are looked at, by their own parsers.
PARSED = (
    Row(r"^python -m pipeline\.training\.", "takes the corpora and hours; tests/unit runs its stages on data "
        "made for them"),
    Row(r"^talkalong evaluate ",
        "needs held-out recordings and MediaPipe; tests/unit/test_evaluation.py and test_studies.py run it whole"),
    Row(r"^talkalong latency .*--self-test",
        "six receivers at once for half a minute; tests/loopback/test_latency_self_test.py runs it whole"),
    Row(r"^python -m pipeline\.benchmark_variants",
        "needs OpenVINO and ONNX, which no other part uses; tests/unit/test_variants.py"),
)  # fmt: skip

# Commands that are not run at all.
NOT_RUN = (
    Row(r"^(sudo )?apt install |\bsudo (apt|modprobe|tee) ", "changes the machine: packages, kernel modules"),
    Row(r"^docker run .*\.\.\.$", "Talkalong has no image of its own: the line shows how ports are published"),
    Row(r"mediapipe", "MediaPipe wants an environment and a download of its own; judges and landmarks use it"),
    Row(r"^ffmpeg .* -f whip ", "wants FFmpeg 8, which Debian has not; tests/loopback/whip_muxer.py runs its client"),
    Row(r"pip install torch==\S+ --index-url$", "ends where the reader puts an address in; a download"),
)  # fmt: skip

# Exit statuses other than 0 that are right here.
STATUSES = (
    (r"talkalong serve", {130}, "ended by Ctrl-C"),
    (r"latency (?!compare)", {3}, "so short a run, on a busy machine, is told to be unfit"),
    (r"bench --only", {3}, "as above"),
    (r"doctor", {1}, "a machine of tests has neither microphone nor a fast processor"),
    (r"devices", {1}, "a machine of tests has no sound devices"),
)

# Blocks that are no commands, and why nothing runs them: by their first line.
SHOWN = {
    "microphone ─Opus/WebRTC→ ingest": "a drawing",
    "OBS, browser, any WHIP source": "a drawing",
    "0:12:31  25.0 fps": "what a command says; compared with it in test_commands.py",
}
