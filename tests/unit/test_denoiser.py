"""The denoiser streams exactly as it trains, sees exactly as far ahead as it says, and never grows."""

import pytest
import torch

from pipeline.denoiser import LEFT_SLOTS, Denoiser, context_mask, own_chunk_mask
from pipeline.sampler import denoise_after, denoise_chunk, frame_noise, remember
from pipeline.scheduler import FlowMatchScheduler
from pipeline.state import Memory

LATENT, AUDIO, CONTEXT = 6, 10, 5


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    model = Denoiser(
        latent_size=LATENT, audio_size=AUDIO, channels=16, layers=3, heads=2, context_frames=CONTEXT
    ).eval()
    for parameter in model.parameters():  # no weight at its neutral start, so that every path matters
        torch.nn.init.normal_(parameter, std=0.2)
    model.latent_scale.copy_(torch.linspace(0.3, 1.2, LATENT))
    model.latent_mean.copy_(torch.linspace(-1, 1, LATENT))
    return model.requires_grad_(False)


def features(frames: int, right: int) -> torch.Tensor:
    return torch.randn(1, LEFT_SLOTS + frames + right, AUDIO, generator=torch.Generator().manual_seed(3))


def session(denoiser: Denoiser) -> torch.Tensor:
    return denoiser.embed_session(torch.full((1, LATENT), 0.4), torch.tensor([[1.0, -1.0]]))


@pytest.mark.parametrize(("hop", "right"), [(1, 1), (2, 2), (3, 0)])
def test_streaming_equals_the_masked_sequence(denoiser: Denoiser, hop: int, right: int) -> None:
    frames = 12 * hop // hop * hop
    generator = torch.Generator().manual_seed(1)
    clean = torch.randn(1, frames, LATENT, generator=generator)
    noisy = torch.randn(1, frames, LATENT, generator=generator)
    sigma = torch.rand(1, frames // hop, generator=generator).repeat_interleave(hop, 1)
    heard, held = features(frames, right), session(denoiser)
    audio = denoiser.embed_audio(heard, right)
    context = denoiser.encode_sequence(clean, audio, held, hop)
    whole = denoiser.predict_sequence(noisy, sigma, audio, held, context, hop)

    ring = denoiser.new_ring()
    for first in range(0, frames, hop):
        part = slice(first, first + hop)
        own_audio = denoiser.embed_audio(heard[:, first : first + LEFT_SLOTS + hop + right], right)
        x0, _, _ = denoiser(noisy[:, part], sigma[:, part], own_audio, held, ring)
        torch.testing.assert_close(x0, whole[:, part], atol=1e-5, rtol=0)
        z = denoiser.denormalize(clean[:, part])
        ring = remember(denoiser, ring, z, audio_BTC=own_audio, session_BC=held)


def test_masks_say_what_a_session_remembers() -> None:
    assert context_mask(12, 2, CONTEXT)[9].nonzero().flatten().tolist() == [3, 4, 5, 6, 7]
    assert own_chunk_mask(12, 2)[9].nonzero().flatten().tolist() == [8, 9]


@pytest.mark.parametrize("right", [0, 1, 2])
def test_look_ahead_is_exactly_as_stated(denoiser: Denoiser, right: int) -> None:
    frames = 4
    heard = features(frames, 3)[:, : LEFT_SLOTS + frames + right]
    audio = denoiser.embed_audio(heard, right)
    for changed in range(-LEFT_SLOTS, frames + right):
        other = heard.clone()
        other[:, LEFT_SLOTS + changed] *= -1.0
        differs = (denoiser.embed_audio(other, right) != audio).any(-1)[0].nonzero().flatten().tolist()
        assert differs == [t for t in range(frames) if changed - right <= t <= changed + LEFT_SLOTS]


def test_more_look_ahead_than_the_model_has_is_refused(denoiser: Denoiser) -> None:
    with pytest.raises(ValueError, match="0 to 2 frames ahead"):
        denoiser.embed_audio(torch.zeros(1, 9, AUDIO), 3)


def test_memory_is_bounded_and_only_the_last_frames_matter(denoiser: Denoiser) -> None:
    held, scheduler = session(denoiser), FlowMatchScheduler()
    audio = denoiser.embed_audio(features(2, 2), 2)

    def run(start: int, chunks: int) -> torch.Tensor:
        """The chunk after `chunks` given ones, of which only the place differs."""
        ring = denoiser.new_ring()
        for chunk in range(start, chunks):
            z = frame_noise(7, range(2 * chunk, 2 * chunk + 2), LATENT)[None]
            ring = remember(denoiser, ring, z, audio_BTC=audio, session_BC=held)
            assert ring.frames <= CONTEXT
        noise = frame_noise(8, range(2), LATENT)[None]
        return denoise_chunk(denoiser, scheduler, ring, audio_BTC=audio, session_BC=held, noise_BTD=noise)[0]

    after_long, after_short = run(0, 40), run(40 - 3, 40)
    assert torch.equal(after_long, after_short)
    assert not torch.equal(after_long, run(40 - 2, 40))


@pytest.mark.parametrize("hop", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_pass_that_remembers_too_makes_the_same(denoiser: Denoiser, hop: int, steps: int) -> None:
    """From an empty ring to one that forgets, with another style in every chunk."""
    scheduler, audio = FlowMatchScheduler(), denoiser.embed_audio(features(hop, 2), 2)
    ring, apart, memory = denoiser.new_ring(), denoiser.new_ring(), None
    for chunk in range(6):
        held = denoiser.embed_session(
            torch.full((1, LATENT), 0.1 * chunk), torch.tensor([[0.3 * chunk, 1.0]])
        )
        given = {
            "audio_BTC": audio * (1 + chunk),
            "session_BC": held,
            "noise_BTD": frame_noise(5, range(chunk * hop, (chunk + 1) * hop), LATENT)[None],
            "num_inference_steps": steps,
        }
        z, ring = denoise_after(denoiser, scheduler, ring, memory, **given)
        expected, after = denoise_chunk(denoiser, scheduler, apart, **given)
        torch.testing.assert_close(z, expected, atol=1e-4, rtol=1e-5)
        assert ring.frames == apart.frames
        torch.testing.assert_close(ring.keys, apart.keys, atol=1e-4, rtol=1e-5)
        memory, apart = Memory(z, audio * (1 + chunk), held), after


def test_lids_are_told_frame_by_frame(denoiser: Denoiser) -> None:
    heard = features(4, 2)

    def tokens(*lids: float) -> torch.Tensor:
        return denoiser.embed_audio(heard, 2, torch.tensor([lids]))

    still = tokens(0.0, 0.0, 0.0, 0.0)
    differs = (tokens(0.0, 0.8, 0.0, 0.0) != still).any(-1)[0]
    assert differs.tolist() == [False, True, False, False]
    assert not torch.equal(denoiser.embed_audio(heard, 2), still)  # "not stated" is not "open"
    assert torch.equal(denoiser.embed_audio(heard, 2), tokens(-1.0, -1.0, -3.0, -1.0))


def test_style_and_reference_reach_the_output(denoiser: Denoiser) -> None:
    audio, noise = denoiser.embed_audio(features(2, 2), 2), frame_noise(0, range(2), LATENT)[None]

    def run(reference: float, style: list[float]) -> torch.Tensor:
        held = denoiser.embed_session(torch.full((1, LATENT), reference), torch.tensor([style]))
        ring, scheduler = denoiser.new_ring(), FlowMatchScheduler()
        return denoise_chunk(denoiser, scheduler, ring, audio_BTC=audio, session_BC=held, noise_BTD=noise)[0]

    base = run(0.0, [1.0, 1.0])
    assert torch.equal(base, run(0.0, [1.0, 1.0]))
    for other in (run(0.5, [1.0, 1.0]), run(0.0, [2.0, 1.0]), run(0.0, [1.0, 0.0]), run(0.0, [-1.0, 1.0])):
        assert not torch.allclose(base, other, atol=1e-4)
    assert torch.equal(run(0.0, [-1.0, 1.0]), run(0.0, [-3.0, 1.0]))  # "not stated" has no degree


def test_noise_depends_on_seed_and_frame_only() -> None:
    assert torch.equal(frame_noise(5, range(4), 8)[2:], frame_noise(5, range(2, 4), 8))
    assert not torch.equal(frame_noise(5, range(1), 8), frame_noise(6, range(1), 8))
    many = frame_noise(1, range(2000), 8)
    assert abs(float(many.mean())) < 0.05
    assert abs(float(many.std()) - 1) < 0.05
    assert frame_noise(1, range(10**9, 10**9 + 1), 8).isfinite().all()
