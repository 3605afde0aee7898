"""Which moments clips show."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from filmstrip.video import sampling

spans = st.tuples(st.floats(0, 100), st.floats(0.05, 500)).map(lambda pair: (pair[0], pair[0] + pair[1]))
rates = st.floats(1, 120)
counts = st.integers(1, 64)
seeds = st.integers(0, 2**32)


@settings(deadline=None)
@given(spans, rates, counts, st.integers(1, 16), seeds)
def test_dense_clips_stay_inside_and_keep_their_stride(span, fps, num_frames, stride, seed):
    start, end = span
    for times in (
        sampling.dense(num_frames, stride, fps, start, end),
        sampling.dense(num_frames, stride, fps, start, end, np.random.default_rng(seed)),
        *sampling.dense_views(num_frames, stride, fps, start, end, 3),
    ):
        assert times.shape == (num_frames,)
        assert times[0] >= start and times[-1] <= end + 1e-9
        steps = np.diff(times)
        assert (steps >= 0).all() and (steps <= stride / fps + 1e-6).all()
        if (num_frames - 1) * stride + 2 <= (end - start) * fps:
            np.testing.assert_allclose(steps, stride / fps, atol=0.02 / fps)


def test_dense_times_are_the_middles_of_frames():
    np.testing.assert_allclose(sampling.dense_from(1.0, 3, 2, 10, 9.0), [1.05, 1.25, 1.45])
    np.testing.assert_allclose(
        sampling.dense_from(1.0, 3, 2, 10, 1.2), [1.05, 1.15, 1.15], err_msg="last frame again"
    )


def test_dense_starts_are_uniform_over_all_that_fit():
    rng = np.random.default_rng(0)
    firsts = [round(sampling.dense(4, 2, 10, 0, 1.2, rng)[0] * 10 - 0.5) for _ in range(600)]
    values, times = np.unique(firsts, return_counts=True)
    assert values.tolist() == [0, 1, 2, 3, 4, 5] and times.min() > 60


def test_clips_around_a_moment_show_it_in_their_middle():
    times = sampling.dense_around(2.0, num_frames=4, stride=2, fps=10, end=9.0)
    np.testing.assert_allclose(times, np.array([1.6, 1.8, 2.0, 2.2]) + 0.05)
    np.testing.assert_allclose(sampling.dense_around(1.25, 1, 5, 8, 4.0), [1.25 + 0.5 / 8])
    early = sampling.dense_around(0.1, 4, 2, 10, 9.0)
    np.testing.assert_allclose(early, [0.05, 0.05, 0.15, 0.35])
    late = sampling.dense_around(8.8, 4, 2, 10, 9.0)
    np.testing.assert_allclose(late, [8.45, 8.65, 8.85, 8.95])


def test_views_reach_both_ends():
    views = sampling.dense_views(4, 2, 10, 0, 3.0, 5)
    assert views[0, 0] == 0.05 and np.isclose(views[-1, -1], 2.95)
    np.testing.assert_allclose(sampling.dense_views(4, 2, 10, 0, 3.0, 1)[0], sampling.dense(4, 2, 10, 0, 3.0))


@given(spans, counts, seeds)
def test_segments_give_one_moment_each(span, num_frames, seed):
    start, end = span
    edges = np.linspace(start, end, num_frames + 1)
    for times in (
        sampling.segments(num_frames, start, end),
        sampling.segments(num_frames, start, end, np.random.default_rng(seed)),
        *sampling.shifted_views(num_frames, start, end, 4),
    ):
        assert (times >= edges[:-1] - 1e-9).all() and (times <= edges[1:] + 1e-9).all()
    np.testing.assert_array_equal(sampling.segments(num_frames, start, end), sampling.uniform(num_frames, start, end))


def test_key_frames_are_taken_only_inside_the_span():
    keys = np.array([0.0, 2.0, 4.0])
    assert sampling.to_key_frame(3.9, keys, 0.0) == 2.0
    assert sampling.to_key_frame(4.0, keys, 0.0) == 4.0
    assert sampling.to_key_frame(3.9, keys, 2.5) == 3.9
