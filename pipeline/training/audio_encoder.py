"""Trains the AudioEncoder: Whisper's features and Kokoro's phonemes as targets, augmented audio as input.

Feature t must tell the phonemes of frames t - 2, t - 1 and t (six 20 ms units) and Whisper's feature of
frame t - 2.

    python -m pipeline.training.audio_encoder --config configs/train/audio_encoder.yaml
"""

from __future__ import annotations

import argparse
import json
import logging
import time
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
from pipeline.training.curves import Curves
from pipeline.training.settings import load_settings

logger = logging.getLogger(__name__)

UNITS = 6
"""Phoneme units (20 ms) that one feature describes: frames t-2, t-1 and t."""
IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class AudioEncoderSettings:
    """configs/train/audio_encoder.yaml."""

    minutes: float
    batch_clips: int
    clip_frames: int
    learning_rate: float
    phoneme_weight: float
    whisper_weight: float
    seed: int
    threads: int


def phoneme_classes(symbols: list[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Class names (silence first) and each Kokoro symbol's class or IGNORED (stress marks, blanks)."""
    ignored = set("ˈˌ ː")
    sounds = [s for s in symbols if s not in ignored and s.isalpha() and s != "sil"]
    classes = ["sil", *sounds]
    table = [IGNORED if s in ignored else (classes.index(s) if s in sounds else 0) for s in symbols]
    return classes, np.asarray(table, np.int64)


class SpeechCorpus:
    """One `runs/speech/<corpus>.npz` with its cached Whisper features [frames,384]."""

    def __init__(
        self, path: Path, whisper: NDArray[np.float16] | None, table: NDArray[np.int64] | None
    ) -> None:
        archive = np.load(path)
        self.audio: NDArray[np.int16] = archive["audio"]
        self.offsets: NDArray[np.int64] = archive["offsets"]
        self.whisper = whisper
        has_phonemes = table is not None and "phonemes" in archive.files
        self.phonemes = table[archive["phonemes"]] if has_phonemes and table is not None else None
        self.frames = int(self.offsets[-1])

    def cut(
        self, start: int, frames: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """From frame `start` on: audio [frames*640], Whisper features [frames,384], phonemes [2*frames]."""
        samples = self.audio[start * SAMPLES_PER_FRAME : (start + frames) * SAMPLES_PER_FRAME]
        audio: NDArray[np.float32] = (samples / 32768).astype(np.float32)
        if self.whisper is None:
            whisper = np.full((frames, 384), np.nan, np.float32)
        else:
            whisper = self.whisper[start : start + frames].astype(np.float32)
        if self.phonemes is None:
            phonemes = np.full(2 * frames, IGNORED, np.int64)
        else:
            phonemes = self.phonemes[2 * start : 2 * (start + frames)]
        return audio, whisper, phonemes


def whisper_cache(corpus: Path, cache: Path) -> NDArray[np.float16]:
    """Whisper's features of a whole corpus, computed once (30 s windows across clips)."""
    if cache.exists():
        return np.load(cache)
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


def augment(audio_BN: Tensor, rng: np.random.Generator) -> Tensor:
    """What microphones and rooms do: reverberation, noise, babble, level, band limits, clipping."""
    batch, samples = audio_BN.shape
    out = audio_BN.clone()
    if rng.random() < 0.4:
        length = 4000
        decay = torch.exp(-torch.arange(length) / (16000 * rng.uniform(0.02, 0.12)))
        tail = torch.randn(batch, length) * decay * float(rng.uniform(0.01, 0.06))
        tail[:, 0] = 1.0
        size = 2 ** int(np.ceil(np.log2(samples + length)))
        out = torch.fft.irfft(torch.fft.rfft(out, size) * torch.fft.rfft(tail, size), size)[:, :samples]
    level = out.square().mean(1, keepdim=True).sqrt().clamp_min(1e-4)
    noise = torch.randn(batch, samples)
    if rng.random() < 0.5:  # pink-ish
        spectrum = torch.fft.rfft(noise)
        noise = torch.fft.irfft(spectrum / torch.arange(1, spectrum.shape[1] + 1).sqrt(), samples)
    if rng.random() < 0.3:  # babble from the batch itself
        noise = out.roll(1, 0) + out.roll(2, 0) + out.roll(3, 0)
    noise = noise / noise.square().mean(1, keepdim=True).sqrt().clamp_min(1e-4)
    ratio_db = torch.from_numpy(rng.uniform(3, 50, (batch, 1)).astype(np.float32))
    out = out + noise * level * 10 ** (-ratio_db / 20)
    if rng.random() < 0.25:
        spectrum = torch.fft.rfft(out)
        bins = torch.linspace(0, 8000, spectrum.shape[1])
        low, high = rng.uniform(20, 300), rng.uniform(3000, 8000)
        shape = torch.sigmoid((bins - low) / 30) * torch.sigmoid((high - bins) / 200)
        out = torch.fft.irfft(spectrum * shape, samples)
    gain_db = torch.from_numpy(rng.uniform(-26, 8, (batch, 1)).astype(np.float32))
    return (out * 10 ** (gain_db / 20)).clamp(-1, 1)


class Heads(nn.Module):
    """What the features are trained against; kept beside the encoder, not part of the product."""

    def __init__(self, feature_size: int, classes: int) -> None:
        super().__init__()
        self.phonemes = nn.Linear(feature_size, UNITS * classes)
        self.whisper = nn.Linear(feature_size, 384)
        self.classes = classes

    def forward(self, features_BTF: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.phonemes(features_BTF).unflatten(-1, (UNITS, self.classes))
        return logits, self.whisper(features_BTF)


def targets(phonemes_BU: Tensor) -> Tensor:
    """Units [B, 2T] -> [B, T, 6]: the units of frames t-2, t-1, t; IGNORED before the clip."""
    padded = functional.pad(phonemes_BU, (4, 0), value=IGNORED)
    return padded.unfold(1, UNITS, 2)


def evaluate(
    encoder: AudioEncoder, heads: Heads, corpus: SpeechCorpus, labial: Tensor, change: str
) -> dict[str, float]:
    """Held-out figures over every clip; `change` is "" (clean), "noise" (10 dB white) or "quiet" (-20 dB).

    accuracy_<look-back>: share of 20 ms units told right, silence included; labial_recall: units of p, b, m
    told as one of them, 40 ms back; labial_found: whole p, b, m sounds with at least one such unit.
    """
    device = next(encoder.parameters()).device
    hits, known_units = torch.zeros(UNITS), torch.zeros(UNITS)
    recalled, labials, found, sounds = 0, 0, 0, 0
    generator = torch.Generator().manual_seed(0)
    for start, end in zip(corpus.offsets[:-1].tolist(), corpus.offsets[1:].tolist(), strict=True):
        audio, _, phonemes = corpus.cut(start, end - start)
        pcm = torch.from_numpy(audio)[None]
        if change == "noise":
            noise = torch.randn(pcm.shape, generator=generator)
            pcm = pcm + noise * pcm.square().mean().sqrt() * 10**-0.5
        elif change == "quiet":
            pcm = pcm * 0.1
        with torch.inference_mode():
            predicted = heads(encoder(pcm.to(device)))[0].argmax(-1)[0].cpu()
        target = targets(torch.from_numpy(phonemes)[None])[0]
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


def train(settings: AudioEncoderSettings, runs: Path) -> None:
    """Trains for `settings.minutes` over all resumed calls; writes runs/audio_encoder/."""
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out = runs / "audio_encoder"
    out.mkdir(parents=True, exist_ok=True)
    symbols = [str(s) for s in np.load(runs / "speech" / "kokoro_train.npz")["phoneme_names"]]
    classes, table = phoneme_classes(symbols)
    corpora = []
    for name in ("kokoro_train", "grid_train", "ljspeech"):
        path = runs / "speech" / f"{name}.npz"
        # Real speech learns from Whisper; synthetic speech has exact phonemes.
        cached = None if name == "kokoro_train" else whisper_cache(path, runs / "whisper" / f"{name}.npy")
        corpora.append(SpeechCorpus(path, cached, table))
    held_out = SpeechCorpus(runs / "speech" / "kokoro_val.npz", None, table)
    share = np.array([corpus.frames for corpus in corpora], np.float64)
    share = share**0.7 / (share**0.7).sum()  # real speech counts for more than its length
    sample = np.concatenate([c.whisper[::50] for c in corpora if c.whisper is not None]).astype(np.float32)
    whisper_mean = torch.from_numpy(sample.mean(0)).to(device)
    whisper_std = torch.from_numpy(sample.std(0)).clamp_min(1e-3).to(device)
    encoder = AudioEncoder().to(device)
    heads = Heads(256, len(classes)).to(device)
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
    rng = np.random.default_rng(settings.seed + step)
    labial = torch.tensor([classes.index(s) for s in ("p", "b", "m") if s in classes])
    budget, started = settings.minutes * 60, time.monotonic() - spent
    progress = curves.progress(budget, initial=spent)

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
        parts = []
        for index in rng.choice(len(corpora), settings.batch_clips, p=share):
            corpus = corpora[index]
            start = int(rng.integers(corpus.frames - settings.clip_frames))
            parts.append(corpus.cut(start, settings.clip_frames))
        clean, whisper, phonemes = (torch.from_numpy(np.stack(part)) for part in zip(*parts, strict=True))
        audio = augment(clean, rng) if rng.random() < 0.85 else clean
        logits, predicted = heads(encoder(audio.to(device)))
        goal = targets(phonemes).to(device)
        phoneme_loss = functional.cross_entropy(logits.flatten(0, 2), goal.flatten(), ignore_index=IGNORED)
        wanted = (whisper.to(device)[:, :-2] - whisper_mean) / whisper_std
        known = wanted.isfinite().all(-1)
        whisper_loss = functional.smooth_l1_loss(predicted[:, 2:][known], wanted[known])
        loss = settings.phoneme_weight * phoneme_loss + settings.whisper_weight * whisper_loss
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(nets.parameters(), 1.0)
        optimiser.step()
        step += 1
        values = {"phoneme_loss": float(phoneme_loss.detach()), "whisper_loss": float(whisper_loss.detach())}
        curves.add("train", step, values)
        progress.update_to(time.monotonic() - started, step=step, **values)
        if step % 200 == 0:
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/train/audio_encoder.yaml"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(load_settings(AudioEncoderSettings, arguments.config), arguments.runs)


if __name__ == "__main__":
    main()
