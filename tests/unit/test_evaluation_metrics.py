"""The measures of the evaluation find what was built into synthetic signals."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.evaluation import head, latent_motion, lips, picture

FRAMES = 300


def talking(frames: int = FRAMES, seed: int = 0) -> NDArray[np.float64]:
    """An aperture with the spectrum of speech: smooth noise, about 5 openings a second."""
    noise = np.random.default_rng(seed).standard_normal(frames + 8)
    return 0.03 + 0.02 * np.convolve(noise, np.hanning(9) / np.hanning(9).sum(), "valid")


def landmarks(apertures: NDArray[np.float64], height: float = 200.0) -> NDArray[np.float32]:
    """FaceMesh landmarks with the given aperture, open eyes and a head that stands still."""
    points = np.zeros((len(apertures), 478, 3), np.float32)
    points[:, lips.FOREHEAD, 1], points[:, lips.CHIN, 1] = 100, 100 + height
    points[:, lips.UPPER_LIP, 1] = 250
    points[:, lips.LOWER_LIP, 1] = 250 + apertures * height
    for inner, outer, width in head._EYES:
        points[:, width[0], 0], points[:, width[1], 0] = 100, 140
        for upper, lower in (inner, outer):
            points[:, upper, 1], points[:, lower, 1] = 150, 162
    return points


@pytest.mark.parametrize("lag", [-3, 0, 2, 5])
def test_known_lag_is_found(lag: int) -> None:
    signal = talking(FRAMES + 20)
    reference, late = signal[10:-10], signal[10 - lag : len(signal) - 10 - lag]
    found = lips.lip_sync([lips.correlation_over_lags(reference, late, 8)])
    assert found.lag_frames == pytest.approx(lag, abs=0.15)
    assert found.peak > 0.99


def test_half_a_frame_is_resolved() -> None:
    time = np.arange(FRAMES)
    reference = np.sin(time / 3) + np.sin(time / 5.3)
    late = np.sin((time - 0.5) / 3) + np.sin((time - 0.5) / 5.3)
    assert lips.lip_sync([lips.correlation_over_lags(reference, late, 6)]).lag_frames == pytest.approx(
        0.5, abs=0.1
    )


def test_unrelated_and_still_lips_do_not_correlate() -> None:
    assert abs(lips.lip_sync([lips.correlation_over_lags(talking(seed=1), talking(seed=2), 5)]).at_zero) < 0.3
    assert lips.correlation(talking(), np.full(FRAMES, 0.01)) == 0.0


@pytest.mark.parametrize("kind", ["still", "unrelated"])
def test_lips_that_do_not_follow_have_no_lag(kind: str) -> None:
    others = [talking(seed=seed) for seed in range(10, 20)]
    measured = [np.full(FRAMES, 0.01)] * 10 if kind == "still" else others
    pairs = [(talking(seed=seed), one) for seed, one in enumerate(measured)]
    found = lips.lip_sync([lips.correlation_over_lags(reference, one, 8) for reference, one in pairs])
    assert found.peak < lips.LEAST_PEAK
    assert np.isnan(found.lag_frames)
    assert found.clips == 10


@pytest.mark.parametrize("share", [0.15, 0.3])
def test_a_lag_is_given_from_the_least_correlation_on(share: float) -> None:
    curve = np.zeros(17)
    curve[9:12] = share * np.array([0.5, 1.0, 0.5])
    lag = lips.lip_sync([curve]).lag_frames
    assert np.isnan(lag) if share < lips.LEAST_PEAK else lag == pytest.approx(2.0)


def test_too_short_for_the_lag_is_an_error() -> None:
    with pytest.raises(ValueError, match="too few"):
        lips.correlation_over_lags(talking(10), talking(10), 5)


def test_aperture_is_gap_over_face_height_and_bridges_lost_frames() -> None:
    expected = talking()
    points = landmarks(expected)
    points[40:43] = np.nan
    measured = lips.aperture(points)
    assert measured[:40] == pytest.approx(expected[:40], rel=1e-4)
    assert measured[41] == pytest.approx((measured[39] + measured[43]) / 2)


def test_face_never_found_is_an_error() -> None:
    with pytest.raises(ValueError, match="No frame"):
        lips.fill_gaps(np.full(5, np.nan))


def test_known_closure_recall_is_found() -> None:
    series = np.full(100, 0.05)
    intervals = [(10, 12), (30, 33), (50, 52), (70, 72)]
    series[11] = series[31] = 0.001  # two closures inside, one a frame late, one missing
    series[52] = 0.001
    series[90:] = 0.0
    threshold = lips.closed_threshold(series, rest=0.002)
    assert lips.closures(series, intervals, threshold).tolist() == [True, True, True, False]
    assert lips.closures(series, intervals, threshold, tolerance_frames=0).tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_a_mouth_that_hangs_open_closes_nowhere() -> None:
    series = 0.05 + 0.01 * np.sin(np.arange(200))
    threshold = lips.closed_threshold(series, rest=0.001)
    assert not lips.closures(series, [(start, start + 3) for start in range(0, 190, 10)], threshold).any()


def test_a_mouth_that_never_opens_makes_no_closures() -> None:
    threshold = lips.closed_threshold(np.full(100, 0.001), rest=0.001)
    assert not lips.closures(np.full(100, 0.001), [(10, 13)], threshold).any()


def test_closed_runs_of_a_real_speaker() -> None:
    series = np.full(40, 0.05)
    series[[3, 12, 13, 20]] = 0.0
    assert lips.closed_intervals(series, 0.01, (5, 30)) == [(12, 14), (20, 21)]


def test_stillness_ignores_the_settling() -> None:
    series = np.zeros(100)
    series[:10] = 0.05
    assert lips.stillness(series) == 0.0
    assert lips.stillness(0.01 * (-1.0) ** np.arange(100)) == pytest.approx(0.01, rel=1e-3)


def test_blinks_are_counted_and_squints_are_not() -> None:
    points = landmarks(np.zeros(200))
    for _, (upper, lower), _ in head._EYES:
        points[:, lower, 1] = points[:, upper, 1] + 12
    for inner, outer, _ in head._EYES:
        for upper, lower in (inner, outer):
            for frame in (30, 31, 90):
                points[frame, lower, 1] = points[frame, upper, 1] + 2
            points[120:150, lower, 1] = points[120:150, upper, 1] + 5  # half shut for over a second
    found = head.blinks(head.eye_openness(points))
    assert len(found) == 2
    assert found[0] in (30, 31)
    assert found[1] == 90


def test_band_speed_of_a_known_sway() -> None:
    time = np.arange(750) / head.FPS
    amplitude, hertz = 0.02, 4 / (74 / 25)
    path = np.stack([amplitude * np.sin(2 * np.pi * hertz * time), np.zeros(750)], axis=1)
    expected = amplitude * 2 * np.pi * hertz / np.sqrt(2)
    assert head.band_speed(*head.velocity_spectrum([path])) == pytest.approx(expected, rel=0.05)
    with pytest.raises(ValueError, match="shorter"):
        head.velocity_spectrum([path[:50]])


def test_blur_lowers_the_laplacian_energy() -> None:
    import cv2

    sharp = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[8:-8, 8:-8] = True
    blurred = np.asarray(cv2.GaussianBlur(sharp, (5, 5), 1.0), np.uint8)
    assert picture.laplacian_energy(blurred, mask) < 0.3 * picture.laplacian_energy(sharp, mask)


def test_face_mask_leaves_the_mouth_out() -> None:
    points = np.zeros((478, 3))
    around = np.linspace(0, 2 * np.pi, len(picture._OVAL), endpoint=False)
    points[list(picture._OVAL), 0] = 50 + 40 * np.sin(around)
    points[list(picture._OVAL), 1] = 50 - 40 * np.cos(around)
    around = np.linspace(0, 2 * np.pi, len(picture._LIPS), endpoint=False)
    points[list(picture._LIPS), 0] = 50 - 15 * np.cos(around)
    points[list(picture._LIPS), 1] = 70 + 8 * np.sin(around)
    mask = picture.face_mask(points, 100, 100)
    assert mask[30, 50]
    assert mask[50, 20]
    assert not mask[70, 50]
    assert not mask[2, 2]


def test_seam_ratio_of_a_built_example() -> None:
    changes = np.array([1.0, 1.5] * 20)  # frame 1 lies in chunk 0, frame 2 begins chunk 1: hop 2
    assert picture.seam_ratio(changes, hop_frames=2) == pytest.approx(1.5)
    assert picture.seam_ratio(np.ones(40), hop_frames=2) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="two frames"):
        picture.seam_ratio(changes, hop_frames=1)


def test_frame_changes_and_colour_drift() -> None:
    frames = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (10, 14, 11)])
    assert picture.frame_changes(frames).tolist() == [4.0, 3.0]
    assert picture.colour_drift(np.full((5, 3), 100.0), np.full((5, 3), 103.0)) == pytest.approx(0.03)


def test_frechet_distance_of_known_gaussians() -> None:
    draw = np.random.default_rng(0).standard_normal((40_000, 3))
    assert latent_motion.frechet_distance(draw, draw) == pytest.approx(0, abs=1e-6)
    # Shift by 2 in one axis: 4. Twice the deviation in another: (2 - 1)^2 = 1.
    assert latent_motion.frechet_distance(draw, draw * (1, 2, 1) + (2, 0, 0)) == pytest.approx(5, rel=0.03)


def test_mouth_opening_direction_is_recovered_without_the_pose() -> None:
    rng = np.random.default_rng(0)
    opening = talking(2000)
    true = np.array([-20.0, 5.0, 0.0, 0.0, 0.0])
    latents = opening[:, None] * true + 0.01 * rng.standard_normal((2000, 5))
    latents[:, 3:] += 3 * opening[:, None]  # nodding along must not become a part of the direction
    found = latent_motion.find_mouth_opening(latents, opening, pose_size=2)
    assert found.direction == pytest.approx(true, abs=0.1)
    assert found.fit > 0.99
    assert found.rest < found.wide


def test_loudness_follows_the_level() -> None:
    tone = np.sin(np.arange(640) * 0.3).astype(np.float32)
    pcm = np.concatenate([tone * gain for gain in (1.0, 0.1, 0.0)])
    loud = latent_motion.loudness(pcm, 640)
    assert loud[0] == pytest.approx(1, abs=0.05)
    assert 0.4 < loud[1] < 0.6
    assert loud[2] == 0
