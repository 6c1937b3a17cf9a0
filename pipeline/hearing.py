"""How loud the speaker is: a voice far below the level of the training speech is raised to it, causally.

Browsers level a microphone themselves; sound files, WHIP sources and cheap microphones do not. Without this, lips
follow six seconds of a voice whose peaks are at -40 dBFS with a correlation of 0.44 instead of 0.85, and with it of
0.67, the first seconds included (`talkalong evaluate --study degradation`). The estimate is a value that a session
carries; a voice at usual levels is not touched at all, so nothing changes for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BLOCK_SAMPLES = 320
"""20 ms at 16 kHz; half a video frame, so chunks hold whole blocks."""
LEAST_DB = -26.0
"""A voice whose running level is below this (dBFS, of its loudest 20 ms) is raised to it; usual are -10 to -18."""
MOST_GAIN_DB = 24.0
START_DB = -16.0
"""The level of speech before any was heard: that of the training speech."""
SILENT_DB = -60.0
"""What is more quiet than a quiet room is nobody's voice."""
ABOVE_FLOOR_DB = 12.0
"""A block counts as speech if it is so far above the quietest of late."""
FLOOR_RISE_DB = 0.04
"""By which the quietest of late is forgotten, a block: 2 dB a second."""
FALL_DB = 0.1
"""By which the running level falls, a block of speech, until a block is as loud: syllables keep it up."""
FAR_DB = 15.0
FAR_BLOCKS = 25
"""After half a second of speech so far below the running level, it was somebody else's level."""
FAST_FALL_DB = 1.0


@dataclass(frozen=True)
class Hearing:
    """level_db: running level of the voice. floor_db: running level of what is there without it. Both in dBFS.

    far_blocks: blocks of speech since one that was near the running level.
    """

    level_db: float = START_DB
    floor_db: float = 0.0
    far_blocks: int = 0

    def after(self, pcm: npt.NDArray[np.float32]) -> Hearing:
        """The value after hearing more sound: float32 [N] at 16 kHz, N a multiple of 320."""
        level_db, floor_db, far_blocks = self.level_db, self.floor_db, self.far_blocks
        power = np.square(pcm.reshape(-1, BLOCK_SAMPLES)).mean(1) + 1e-9
        for block_db in (10 * np.log10(power)).tolist():
            floor_db = min(block_db, floor_db + FLOOR_RISE_DB)
            if block_db > max(SILENT_DB, floor_db + ABOVE_FLOOR_DB):
                far_blocks = 0 if block_db > level_db - FAR_DB else far_blocks + 1
                level_db = max(block_db, level_db - (FAST_FALL_DB if far_blocks > FAR_BLOCKS else FALL_DB))
        return Hearing(level_db, floor_db, far_blocks)

    @property
    def gain(self) -> float:
        """What the sound is multiplied by before the model hears it; exactly 1 for a voice at usual levels."""
        raise_db = min(max(LEAST_DB - self.level_db, 0.0), MOST_GAIN_DB)
        return float(10 ** (raise_db / 20))
