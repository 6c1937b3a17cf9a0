"""Motion without pictures, many sessions at once, is what each session would have made on its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.evaluation.speaking import Manner, shortened, speak
from pipeline.state import Controls
from tests.unit.avatar import plain_portrait, tiny_pipeline

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("hop", "right"), [(2, 2), (1, 1)])
def test_a_batch_of_loud_and_low_sounds_equals_its_sessions(hop: int, right: int) -> None:
    pipe = tiny_pipeline()
    window = pipe.window_spec(hop, right)
    bursts = np.repeat(RNG.random((3, 60)) > 0.5, 640, axis=1)  # 2.4 s that come and go
    pcm_BN = (bursts * RNG.standard_normal((3, 60 * 640)) * [[0.2], [0.01], [0.002]]).astype(np.float32)
    controls = Controls(expressiveness=1.5)
    portraits = [plain_portrait(seed=seed) for seed in range(3)]
    states = [
        pipe.init_state(portrait, window=window, seed=seed, controls=controls)
        for seed, portrait in enumerate(portraits)
    ]
    z_refs = torch.cat([state.z_ref_1D for state in states])
    made = speak(pipe, z_refs, pcm_BN, window, [0, 1, 2], Manner(steps=3, controls=controls))
    gains = []
    for row, (pcm, state) in enumerate(zip(pcm_BN, states, strict=True)):
        for index in range(window.chunk_count(len(pcm))):
            state, motion = pipe.move(state, window.cut(pcm, index), num_inference_steps=3)
            expected = made[row, index * hop : (index + 1) * hop]
            np.testing.assert_allclose(motion.z_TD, expected, atol=1e-4)
        gains.append(state.hearing.gain)
    assert gains[0] == 1.0
    assert gains[2] > gains[0]


def test_a_shortened_ring_keeps_the_latest_frames_and_none_if_asked() -> None:
    pipe = tiny_pipeline()
    ring = pipe.denoiser.new_ring(1)
    shape = (2, 1, 2, 5, 16)
    ring = ring.append(torch.arange(5.0).view(1, 1, 1, 5, 1).expand(shape), torch.zeros(shape))
    assert shortened(ring, None) is ring
    assert shortened(ring, 9) is ring
    assert shortened(ring, 2).keys[0, 0, 0, :, 0].tolist() == [3.0, 4.0]
    assert shortened(ring, 0).frames == 0


def test_without_context_a_chunk_knows_nothing_of_the_ones_before() -> None:
    pipe = tiny_pipeline()
    window = pipe.window_spec()
    z_ref = torch.zeros(1, pipe.denoiser.latent_size)
    # The audio encoder's own memory is some frames long: the sounds agree for the last second.
    one = (0.1 * RNG.standard_normal((1, 50 * 640))).astype(np.float32)
    other = one.copy()
    other[:, : 25 * 640] *= 0.5
    empty = [speak(pipe, z_ref, pcm, window, [4], Manner(context_frames=0)) for pcm in (one, other)]
    carried = [speak(pipe, z_ref, pcm, window, [4]) for pcm in (one, other)]
    assert (empty[0] - empty[1])[:, :20].abs().max() > 1e-4
    # The head's rest and the lean of the first frame remember; the expression of a chunk's last frame does not.
    assert (empty[0] - empty[1])[:, 49, :-5].abs().max() < 1e-5
    assert (carried[0] - carried[1])[:, 27, :-5].abs().max() > 1e-5
