"""What the carried context is worth: rings of fewer motion frames, and none; and whether streaming equals offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluation.plots import pyplot_without_screen, save_figure
from pipeline.evaluation.speaking import Manner, speak
from pipeline.evaluation.studies.few_steps import distance, latent_seam_ratio
from pipeline.evaluation.studies.result import Study
from pipeline.evaluation.studies.speakers import Speakers

PROFILES = ((2, 2), (1, 2), (1, 1))


def streaming_difference(speakers: Speakers, hop_frames: int, right_frames: int) -> float:
    """Largest difference between the latents of a session, window by window, and of the whole sound at once."""
    pipe, clip = speakers.pipe, speakers.clips[0]
    window = pipe.window_spec(hop_frames, right_frames)
    state = pipe.init_state(speakers.portraits[0], window=window, seed=speakers.settings.seed)
    streamed = []
    for index in range(window.chunk_count(len(clip.pcm))):
        state, motion = pipe.move(state, window.cut(clip.pcm, index))
        streamed.append(motion.z_TD)
    offline = speak(pipe, state.z_ref_1D, clip.pcm[None], window, [speakers.settings.seed])[0].cpu().numpy()
    return max(
        float(np.abs(part - offline[index * hop_frames :][: len(part)]).max())
        for index, part in enumerate(streamed)
    )


def study(speakers: Speakers, out: Path) -> Study:
    """Speaks all clips with every length of the ring."""
    trained = speakers.pipe.denoiser.context_frames
    lengths = sorted({min(length, trained) for length in speakers.settings.context_frames} | {trained})
    spoken = {length: speakers.speak(Manner(context_frames=length)) for length in lengths}
    scale = speakers.pipe.denoiser.latent_scale.float().cpu().numpy()
    rows: list[dict[str, Any]] = [
        {
            "ring_frames": length,
            **speakers.figures(speech),
            "frechet": distance(speech, spoken[trained]),
            "seam_ratio": latent_seam_ratio(speech.latents, scale, speakers.window.hop_frames),
            "jitter": float(
                np.mean([np.abs(np.diff(z / scale, n=2, axis=0)).mean() for z in speech.latents])
            ),
        }
        for length, speech in spoken.items()
    ]
    differences = [
        f"{hop} + {right}: {streaming_difference(speakers, hop, right):.1e}" for hop, right in PROFILES
    ]
    return Study(
        name="context",
        title="Carried context",
        rows=rows,
        notes=[
            "Rings of motion frames; 0 empties the ring before every chunk. Frechet distance to the ring as trained; "
            "the seam ratio and jitter (mean second difference, in spreads) are of motion latents.",
            "Streaming against offline, largest difference of the latents, by hop + right context in frames: "
            f"{'; '.join(differences)}.",
        ],
        pictures={plot(rows, out / "context.png").name: "Lips and motion over the length of the ring"},
    )


def plot(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    pyplot = pyplot_without_screen()
    panels = (
        ("lips", ("correlation_grid", "correlation_kokoro", "closure_recall")),
        ("seam ratio", ("seam_ratio",)),
        ("jitter", ("jitter",)),
        ("Frechet distance to the full ring", ("frechet",)),
    )
    figure, axes = pyplot.subplots(1, len(panels), figsize=(16, 3.6))
    for axis, (title, keys) in zip(axes, panels, strict=True):
        for key in keys:
            axis.plot(
                [r["ring_frames"] for r in rows],
                [r[key] for r in rows],
                "o-",
                ms=4,
                label=key.replace("_", " "),
            )
        axis.set_xscale("symlog", base=2, linthresh=2)
        axis.set_xticks([r["ring_frames"] for r in rows], [str(r["ring_frames"]) for r in rows])
        axis.set(title=title, xlabel="motion frames in the ring")
        axis.grid(alpha=0.25)
        if len(keys) > 1:
            axis.legend(fontsize=7)
    axes[1].axhline(1, color="k", lw=0.6)
    return save_figure(pyplot, figure, path)
