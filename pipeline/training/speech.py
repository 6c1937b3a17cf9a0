"""The sound of all corpora as 16 kHz mono, cut to whole video frames: `runs/speech/<corpus>.npz`.

Fields: audio int16 [frames * 640], offsets [clips + 1] in frames, names [clips]; for Kokoro also phonemes
int16 [frames * 2] (20 ms units, index into phoneme_names).

    python -m pipeline.training.speech --data DATA
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

RATE = 16_000
SAMPLES_PER_FRAME = 640
GRID_FRAMES = 75
KOKORO_UNIT_S = 0.025
KOKORO_DELAY_S = 0.050
"""How far Kokoro's durations run behind its sound. Measured on 241 clips, vowels against energy and sibilants
against high frequencies: 48 ms, alike for every voice; Kokoro's own word times are moved earlier as well."""
HELD_OUT_EVERY = 20
"""Every 20th Kokoro clip is held out."""


@dataclass(frozen=True)
class Clip:
    """One clip: its sound, and Kokoro's phoneme indices in 20 ms units if it has any."""

    name: str
    audio: NDArray[np.int16]
    frames: int
    phonemes: NDArray[np.int64] | None = None


def decode(path: Path) -> NDArray[np.int16]:
    """16 kHz mono from the start of the file's timeline, whatever the stream's own start."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        pieces, start_s = [], None
        for frame in container.decode(stream):
            if start_s is None:
                start_s = float(frame.time or 0.0)
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
        pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    audio = np.concatenate(pieces)
    lead = round((start_s or 0.0) * RATE)
    return np.pad(audio, (lead, 0)) if lead >= 0 else audio[-lead:]


def phoneme_units(row: dict[str, Any], index: dict[str, int], frames: int) -> NDArray[np.int64]:
    """Kokoro's durations (25 ms units) as one symbol index per 20 ms of the sound; [2 * frames]."""
    symbols = np.repeat([index[symbol] for symbol in row["phonemes"]], row["durations"])
    at = (((np.arange(2 * frames) + 0.5) * 0.020 + KOKORO_DELAY_S) / KOKORO_UNIT_S).astype(int)
    return symbols[np.minimum(at, len(symbols) - 1)]


def write(path: Path, clips: list[Clip], phoneme_names: list[str] | None = None) -> None:
    """Writes one corpus under a temporary name first, so readers never see half a file."""
    audio = [np.pad(c.audio[: c.frames * 640], (0, max(0, c.frames * 640 - len(c.audio)))) for c in clips]
    fields: dict[str, Any] = {
        "audio": np.concatenate(audio),
        "offsets": np.cumsum([0] + [clip.frames for clip in clips]),
        "names": np.array([clip.name for clip in clips]),
    }
    if phoneme_names:
        labelled = [clip.phonemes for clip in clips if clip.phonemes is not None]
        fields["phonemes"] = np.concatenate(labelled).astype(np.int16)
        fields["phoneme_names"] = np.array(phoneme_names)
    unfinished = path.with_name(f".{path.name}")
    np.savez(unfinished, **fields)
    unfinished.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    data, out = arguments.data, arguments.runs / "speech"
    out.mkdir(parents=True, exist_ok=True)
    for part in ("val", "train"):
        files = sorted((data / "grid" / part).glob("*.mp4"))
        clips = [Clip(f"{part}/{f.stem}", decode(f), GRID_FRAMES) for f in tqdm(files, desc=f"GRID {part}")]
        write(out / f"grid_{part}.npz", clips)
    lines = [line for part in (data / "kokoro").glob("part*.jsonl") for line in part.read_text().splitlines()]
    rows = sorted((json.loads(line) for line in lines), key=lambda row: str(row["file"]))
    names = ["sil", *sorted({symbol for row in rows for symbol in row["phonemes"]})]
    index = {name: i for i, name in enumerate(names)}
    clips = []
    for row in tqdm(rows, desc="Kokoro"):
        audio = decode(data / "kokoro" / row["file"])
        frames = -(-len(audio) // SAMPLES_PER_FRAME)
        clips.append(Clip(Path(row["file"]).stem, audio, frames, phoneme_units(row, index, frames)))
    held_out = clips[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    del clips[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    write(out / "kokoro_val.npz", held_out, names)
    write(out / "kokoro_train.npz", clips, names)
    # PhilippMatthes/dc_tts: one voice that reads texts of LJSpeech, hence the folder's name.
    real = []
    for file in tqdm(sorted((data / "ljspeech").glob("*.opus")), desc="dc_tts"):
        audio = decode(file)
        real.append(Clip(file.stem, audio, -(-len(audio) // SAMPLES_PER_FRAME)))
    write(out / "dc_tts.npz", real)


if __name__ == "__main__":
    main()
