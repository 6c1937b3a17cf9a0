"""Trains the AudioEncoder: Whisper's features, Kokoro's phonemes and mouths as targets, augmented audio as input.

Feature t must tell the phonemes of frames t - 2, t - 1 and t (six 20 ms units) and Whisper's feature of
frame t - 2; the features t - 2 to t + 2 together, as the denoiser reads them, the mouth of frame t.

    python -m pipeline.training.audio_encoder --config configs/train/audio_encoder.yaml
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from pipeline.audio_encoder import SAMPLES_PER_FRAME, AudioEncoder
from pipeline.denoiser import LEFT_SLOTS
from pipeline.training.augmentation import augment
from pipeline.training.curves import Curves
from pipeline.training.motion_file import expression_names
from pipeline.training.sequences import MAX_RIGHT_FRAMES, Basis
from pipeline.training.settings import load_settings

logger = logging.getLogger(__name__)

UNITS = 6
"""Phoneme units (20 ms) that one feature describes: frames t-2, t-1 and t."""
IGNORED = -100
WHISPER_SIZE = 384
CORPORA = ("kokoro_train", "grid_train", "dc_tts")
SYNTHETIC = "kokoro"
"""Has exact phonemes; real speech learns from Whisper."""


@dataclass(frozen=True, kw_only=True)
class AudioEncoderSettings:
    """configs/train/audio_encoder.yaml."""

    minutes: float
    batch_clips: int
    clip_frames: int
    learning_rate: float
    phoneme_weight: float
    whisper_weight: float
    mouth_weight: float
    check_every_s: float
    seed: int
    threads: int


def phoneme_classes(symbols: list[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Class names (silence first) and each Kokoro symbol's class or IGNORED (stress marks, blanks)."""
    ignored = set("ˈˌ ː")
    sounds = [s for s in symbols if s not in ignored and s.isalpha() and s != "sil"]
    classes = ["sil", *sounds]
    table = [IGNORED if s in ignored else (classes.index(s) if s in sounds else 0) for s in symbols]
    return classes, np.asarray(table, np.int64)


@dataclass(frozen=True)
class Speech:
    """Corpora one after the other on one device. What a corpus does not know is NaN or IGNORED.

    audio_N: int16. offsets: first frame of each clip, and the end. whisper_TW: Whisper's features. phonemes_U: classes
    of 20 ms units. mouth_TM: see `mouths`.
    """

    audio_N: Tensor
    offsets: NDArray[np.int64]
    whisper_TW: Tensor
    phonemes_U: Tensor
    mouth_TM: Tensor

    @property
    def frames(self) -> int:
        return int(self.offsets[-1])

    def cut(self, starts_B: Tensor, frames: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """From these frames on: audio [B,N], Whisper's features [B,T,W], phonemes [B,2T], mouths [B,T,M]."""
        frame_BT = starts_B[:, None] + torch.arange(frames, device=starts_B.device)
        unit_BU = 2 * starts_B[:, None] + torch.arange(2 * frames, device=starts_B.device)
        samples = torch.arange(SAMPLES_PER_FRAME * frames, device=starts_B.device)
        audio = self.audio_N[SAMPLES_PER_FRAME * starts_B[:, None] + samples].float() / 32768
        return audio, self.whisper_TW[frame_BT].float(), self.phonemes_U[unit_BU], self.mouth_TM[frame_BT]


def load_speech(
    corpora: Sequence[str], runs: Path, names: Sequence[str], table: NDArray[np.int64], device: torch.device
) -> Speech:
    """Reads `runs/speech/`, and of `runs/motion/` and Whisper what there is for it; `names` are the expressions'."""
    audio, offsets, whisper, phonemes, mouth = [], [np.zeros(1, np.int64)], [], [], []
    basis = Basis.load(runs / "basis.npz")
    for name in corpora:
        path = runs / "speech" / f"{name}.npz"
        with np.load(path) as archive:
            frames = int(archive["offsets"][-1])
            audio.append(archive["audio"][: frames * SAMPLES_PER_FRAME])
            offsets.append(archive["offsets"][1:] + offsets[-1][-1])
            known = (
                table[archive["phonemes"]] if "phonemes" in archive.files else np.full(2 * frames, IGNORED)
            )
            phonemes.append(known.astype(np.int64))
        if name.startswith(SYNTHETIC):
            whisper.append(np.full((frames, WHISPER_SIZE), np.nan, np.float16))
        else:
            whisper.append(whisper_cache(path, runs / "whisper" / f"{name}.npy")[:frames])
        mouth.append(mouths(runs / "motion" / f"{name}.npz", frames, basis, names))

    def tensor(parts: Sequence[NDArray[np.generic]]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(device)

    return Speech(
        audio_N=tensor(audio),
        offsets=np.concatenate(offsets),
        whisper_TW=tensor(whisper),
        phonemes_U=tensor(phonemes),
        mouth_TM=tensor(mouth),
    )


def mouths(path: Path, frames: int, basis: Basis, names: Sequence[str]) -> NDArray[np.float32]:
    """[frames, D + 1]: what the mouth adds to the motion latents, and the lip gap; NaN where no motion is known."""
    made = np.full((frames, len(basis.aperture) + 1), np.nan, np.float32)
    if path.is_file():
        with np.load(path) as archive:
            motion, valid = archive["motion"].astype(np.float32)[:frames], archive["valid"][:frames]
        latents = basis.mouth_part(np.nan_to_num(motion), names)
        made[valid] = np.concatenate([latents, (latents @ basis.aperture)[:, None]], 1)[valid]
    return made


def whisper_cache(corpus: Path, cache: Path) -> NDArray[np.float16]:
    """Whisper's features of a whole corpus, computed once (30 s windows across clips)."""
    if cache.exists():
        return np.asarray(np.load(cache))
    from pipeline.training.whisper import WINDOW_S, WhisperTeacher

    teacher = WhisperTeacher()
    audio = np.load(corpus)["audio"]
    step = WINDOW_S * 16000
    rows = []
    for start in tqdm(range(0, len(audio), step), desc=f"Whisper features of {corpus.stem}"):
        rows.append(teacher.encode(audio[start : start + step].astype(np.float32) / 32768))
    features = np.concatenate(rows)[: len(audio) // SAMPLES_PER_FRAME]
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.save(cache, features)
    return features


class Heads(nn.Module):
    """What the features are trained against; kept beside the encoder, not part of the product."""

    def __init__(self, feature_size: int, classes: int, mouth_size: int) -> None:
        super().__init__()
        self.phonemes = nn.Linear(feature_size, UNITS * classes)
        self.whisper = nn.Linear(feature_size, WHISPER_SIZE)
        heard = LEFT_SLOTS + 1 + MAX_RIGHT_FRAMES
        self.mouth = nn.Sequential(
            nn.Linear(heard * feature_size, feature_size), nn.SiLU(), nn.Linear(feature_size, mouth_size)
        )
        self.classes, self.heard = classes, heard

    def forward(self, features_BTF: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.phonemes(features_BTF).unflatten(-1, (UNITS, self.classes))
        return logits, self.whisper(features_BTF)

    def mouths(self, features_BTF: Tensor) -> Tensor:
        """[B, T - 4, M]: the mouth of the frames 2 to T - 3."""
        return self.mouth(features_BTF.unfold(1, self.heard, 1).transpose(2, 3).flatten(2))


def targets(phonemes_BU: Tensor) -> Tensor:
    """Units [B, 2T] -> [B, T, 6]: the units of frames t-2, t-1, t; IGNORED before the clip."""
    padded = functional.pad(phonemes_BU, (4, 0), value=IGNORED)
    return padded.unfold(1, UNITS, 2)


def evaluate(
    encoder: AudioEncoder, heads: Heads, corpus: Speech, labial: Tensor, change: str
) -> dict[str, float]:
    """Held-out figures over every clip; `change` is "" (clean), "noise" (10 dB white) or "quiet" (-20 dB).

    accuracy_<look-back>: share of 20 ms units told right, silence included; labial_recall: units of p, b, m
    told as one of them, 40 ms back; labial_found: whole p, b, m sounds with at least one such unit.
    """
    hits, known_units = torch.zeros(UNITS), torch.zeros(UNITS)
    recalled, labials, found, sounds = 0, 0, 0, 0
    generator = torch.Generator().manual_seed(0)
    for start, end in zip(corpus.offsets[:-1].tolist(), corpus.offsets[1:].tolist(), strict=True):
        starts = torch.tensor([start], device=corpus.audio_N.device)
        pcm, _, phonemes, _ = corpus.cut(starts, end - start)
        if change == "noise":
            noise = torch.randn(pcm.shape, generator=generator).to(pcm)
            pcm = pcm + noise * pcm.square().mean().sqrt() * 10**-0.5
        elif change == "quiet":
            pcm = pcm * 0.1
        with torch.inference_mode():
            predicted = heads(encoder(pcm))[0].argmax(-1)[0].cpu()
        target = targets(phonemes)[0].cpu()
        # Unit by unit: stress marks are frequent, and demanding six known units in a row would leave few.
        known = target != IGNORED
        hits += ((predicted == target) & known).sum(0)
        known_units += known.sum(0)
        # As one track of 20 ms units, each heard one frame (40 ms) later.
        is_labial = torch.isin(target[1:, 2:4].flatten(), labial)
        told = torch.isin(predicted[1:, 2:4].flatten(), labial) & is_labial
        recalled, labials = recalled + int(told.sum()), labials + int(is_labial.sum())
        begins = is_labial & ~functional.pad(is_labial, (1, 0))[:-1]
        sound_of_unit = begins.cumsum(0)
        sounds, found = sounds + int(begins.sum()), found + len(sound_of_unit[told].unique())
    accuracy = hits.unflatten(0, (3, 2)).sum(1) / known_units.unflatten(0, (3, 2)).sum(1).clamp_min(1)
    tag = f"_{change}" if change else ""
    return {
        **{f"accuracy_{80 - 40 * index}ms{tag}": float(value) for index, value in enumerate(accuracy)},
        f"labial_recall{tag}": recalled / max(labials, 1),
        f"labial_found{tag}": found / max(sounds, 1),
    }


def train(settings: AudioEncoderSettings, runs: Path, data: Path) -> None:
    """Trains for `settings.minutes` over all resumed calls; writes runs/audio_encoder/."""
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out = runs / "audio_encoder"
    out.mkdir(parents=True, exist_ok=True)
    symbols = [str(s) for s in np.load(runs / "speech" / "kokoro_train.npz")["phoneme_names"]]
    classes, table = phoneme_classes(symbols)
    names = expression_names(data)
    corpora = [load_speech([name], runs, names, table, device) for name in CORPORA]
    held_out = load_speech(["kokoro_val"], runs, names, table, device)
    share = torch.tensor([corpus.frames for corpus in corpora]).float() ** 0.7
    share = share / share.sum()  # real speech counts for more than its length
    sample = torch.cat([corpus.whisper_TW[::50].float() for corpus in corpora])
    sample = sample[sample.isfinite().all(1)]
    whisper_mean, whisper_std = sample.mean(0), sample.std(0).clamp_min(1e-3)
    # Latents keep their proportions, as those that move much are seen most; the lip gap counts as much as the largest.
    sample = torch.cat([corpus.mouth_TM for corpus in corpora])
    mouth_std = sample[sample.isfinite().all(1)].std(0)
    mouth_std[:-1] = mouth_std[:-1].max()
    encoder = AudioEncoder().to(device)
    heads = Heads(256, len(classes), corpora[0].mouth_TM.shape[1]).to(device)
    nets = nn.ModuleList([encoder, heads])
    optimiser = torch.optim.AdamW(
        nets.parameters(), settings.learning_rate, weight_decay=1e-2, betas=(0.9, 0.98)
    )
    curves = Curves(out / "curves.json", title="Audio encoder")
    state_file, step, spent = out / "state.pt", 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        nets.load_state_dict(state["nets"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
        torch.manual_seed(settings.seed + step)
    labial = torch.tensor([classes.index(s) for s in ("p", "b", "m") if s in classes])
    budget, started = settings.minutes * 60, time.monotonic() - spent
    progress, checked = curves.progress(budget, initial=spent), spent

    def save() -> None:
        state = {"nets": nets.state_dict(), "optimiser": optimiser.state_dict()}
        torch.save({**state, "step": step, "spent": time.monotonic() - started}, state_file)
        encoder.save_pretrained(out)
        weights = {name: value.contiguous() for name, value in heads.state_dict().items()}
        save_file(weights, out / "phoneme_head.safetensors")
        (out / "phoneme_classes.json").write_text(json.dumps(classes, ensure_ascii=False))
        curves.save()

    while (elapsed := time.monotonic() - started) < budget:
        rate = settings.learning_rate * min(1.0, (step + 1) / 100) * max(0.02, 1 - elapsed / budget)
        for group in optimiser.param_groups:
            group["lr"] = rate
        counts = torch.bincount(
            torch.multinomial(share, settings.batch_clips, replacement=True), minlength=len(corpora)
        ).tolist()
        parts = []
        for corpus, count in zip(corpora, counts, strict=True):
            last = corpus.frames - settings.clip_frames
            parts.append(corpus.cut(torch.randint(last, (count,), device=device), settings.clip_frames))
        clean, whisper, phonemes, mouth = (torch.cat(part) for part in zip(*parts, strict=True))
        features = encoder(augment(clean))
        logits, predicted = heads(features)
        phoneme_loss = functional.cross_entropy(
            logits.flatten(0, 2), targets(phonemes).flatten(), ignore_index=IGNORED
        )
        whisper_loss = _known_error(predicted[:, 2:], (whisper[:, :-2] - whisper_mean) / whisper_std)
        wanted = mouth[:, LEFT_SLOTS:-MAX_RIGHT_FRAMES] / mouth_std
        mouth_loss = _known_error(heads.mouths(features), wanted)
        loss = (
            settings.phoneme_weight * phoneme_loss
            + settings.whisper_weight * whisper_loss
            + settings.mouth_weight * mouth_loss
        )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(nets.parameters(), 1.0)
        optimiser.step()
        step += 1
        values = {"phoneme_loss": phoneme_loss, "whisper_loss": whisper_loss, "mouth_loss": mouth_loss}
        curves.add("train", step, {name: value.detach() for name, value in values.items()})
        if step % 10 == 0:
            shown = {name: float(value.detach()) for name, value in values.items()}
            progress.update_to(time.monotonic() - started, step=step, **shown)
        if elapsed - checked > settings.check_every_s:
            checked = elapsed
            encoder.eval()
            result = evaluate(encoder, heads, held_out, labial, "")
            encoder.train()
            curves.add("held_out", step, result)
            progress.note(f"step {step}: " + ", ".join(f"{key} {value:.3f}" for key, value in result.items()))
            save()
    encoder.eval()
    result = {}
    for change in ("", "noise", "quiet"):
        result.update(evaluate(encoder, heads, held_out, labial, change))
    curves.add("held_out", step, result)
    save()
    logger.info("%s", json.dumps(result, indent=2))


def _known_error(made_BTK: Tensor, wanted_BTK: Tensor) -> Tensor:
    """Smooth error where the target is known (finite); without a boolean index, which a GPU would have to wait for."""
    known = wanted_BTK.isfinite().all(-1)
    wanted = torch.where(known[..., None], wanted_BTK, 0.0)
    error = functional.smooth_l1_loss(made_BTK, wanted, reduction="none").mean(-1)
    return (error * known).sum() / known.sum().clamp_min(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/train/audio_encoder.yaml"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(load_settings(AudioEncoderSettings, arguments.config), arguments.runs, arguments.data)


if __name__ == "__main__":
    main()
