"""The geometry of the figures against independent computations, and figures that hold what they were given."""

import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from hoptm import path_plots
from hoptm.config import generator
from hoptm.shape import three_point_cosines


def cloud(*shape, name="cloud"):
    return torch.randn(*shape, generator=generator(0, name), dtype=torch.float64)


def words(drawn: Figure) -> list[str]:
    """All text of a figure that is seen."""
    drawn.canvas.draw()
    return [text.get_text() for text in drawn.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_visible() and text.get_text()]


# ---- from many dimensions to two -------------------------------------------------------------------------------


def test_points_of_a_plane_keep_their_distances():
    inside = cloud(12, 2) * torch.tensor([3.0, 1.0])
    axes, _ = torch.linalg.qr(cloud(50, 2, name="axes"))
    places, share = path_plots.principal_plane(inside @ axes.T + cloud(50, name="shift"))
    assert share == pytest.approx(1.0, abs=1e-12)
    torch.testing.assert_close(torch.cdist(places, places), torch.cdist(inside, inside))


def test_the_principal_plane_is_that_of_the_covariance():
    points = cloud(40, 5) * torch.tensor([1.0, 5.0, 0.3, 2.0, 0.1])
    places, share = path_plots.principal_plane(points)
    values = np.linalg.eigvalsh(np.cov(points.numpy().T))
    np.testing.assert_allclose(places.var(dim=0).numpy(), values[::-1][:2], rtol=1e-10)
    assert share == pytest.approx(values[-2:].sum() / values.sum())
    assert (places.gather(0, places.abs().argmax(dim=0, keepdim=True)) > 0).all()


@pytest.mark.parametrize("points", [torch.ones(4, 3), torch.ones(1, 3), torch.arange(4.0)[:, None]])
def test_points_that_hardly_spread(points):
    places, share = path_plots.principal_plane(points)
    assert places.shape == (len(points), 2) and torch.isfinite(places).all()
    assert share == pytest.approx(1.0)


def test_a_triangle_in_its_own_plane_keeps_lengths_and_angles():
    points = cloud(3, 1000)
    flat = path_plots.own_plane(points)
    torch.testing.assert_close(torch.cdist(flat, flat), torch.cdist(points, points))
    torch.testing.assert_close(three_point_cosines(flat), three_point_cosines(points))
    assert flat[0].tolist() == [0, 0] and flat[2, 1] == 0 and flat[2, 0] > 0 and flat[1, 1] > 0


def test_flat_triangles_stay_finite():
    one, zero = torch.ones(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    line = path_plots.own_plane(torch.stack([zero, one, 3 * one]))
    torch.testing.assert_close(line, torch.tensor([[0.0, 0.0], [2.0, 0.0], [6.0, 0.0]], dtype=torch.float64))
    back = path_plots.own_plane(torch.stack([zero, one, zero]))
    torch.testing.assert_close(back, torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]], dtype=torch.float64))
    assert not path_plots.own_plane(torch.stack([one, one, one])).any()


def test_running_mean_keeps_the_length_and_a_constant():
    assert path_plots.running_mean(np.full(25, 3.0)).tolist() == [3.0] * 25
    assert path_plots.running_mean(np.arange(20.0)).tolist()[2:18] == list(range(2, 18))
    assert path_plots.running_mean(np.array([1.0, 5.0])).tolist() == [1.0, 5.0]


# ---- figures ---------------------------------------------------------------------------------------------------


def test_kept_checkpoints_counts_what_is_read():
    drawn = path_plots.kept_checkpoints({"short": (3, [0, 1, 3]), "long": (30, range(5))})
    assert {"short: 3 of 4", "long: 5 of 31"} <= set(words(drawn))
    colours = [patch.get_facecolor() for patch in drawn.axes[0].patches]
    assert len(colours) == 4 + 31 and colours[0] == colours[1] == colours[3] != colours[2]
    assert colours.count(colours[0]) == 3 + 5


def test_two_maps_lay_starts_together_and_end_at_the_experts_numbers():
    drawn = path_plots.two_maps(cloud(3, 4, 30), cloud(3, 4, 8, name="answers"))
    left, right = drawn.axes
    assert [text.get_text() for text in left.texts] == ["0", "1", "2"]
    starts = {tuple(np.round(line.get_xydata()[0], 9)) for line in left.lines if len(line.get_xdata()) == 4}
    assert len(starts) == 1
    assert len({tuple(np.round(line.get_xydata()[0], 9)) for line in right.lines if len(line.get_xdata()) == 4}) == 3


def test_the_film_of_the_maps_walks_and_is_small():
    paths = cloud(6, 6, 30).cumsum(dim=1)
    film = path_plots.two_maps_film(paths, paths[..., :9], frames=2)
    opened = Image.open(io.BytesIO(film))
    assert opened.n_frames == 5 * 2 + 1 and opened.info["duration"] == 130
    frames = []
    for number in range(opened.n_frames):
        opened.seek(number)
        frames.append(np.array(opened.convert("RGB")).astype(int))
    assert all((one != other).any() for one, other in zip(frames[1:], frames, strict=False))
    assert opened.info["duration"] == 2_000 and frames[-1].max() == 255
    assert len(film) < 120_000


def test_loss_rise_draws_a_line_an_expert_and_direction():
    rises = {"uphill": {"sgd": [0.0, 1.0], "flat": [0.0, 0.5]}, "random": {"sgd": [0.0, 0.1], "flat": [0.0, 0.1]}}
    drawn = path_plots.loss_rise([0.0, 2.0], rises)
    assert {"uphill", "random", "sgd expert", "flat expert"} <= set(words(drawn))
    assert [list(line.get_ydata()) for line in drawn.axes[0].lines[:2]] == [[0.0, 1.0], [0.0, 0.5]]


def test_plane_paths_marks_first_middle_and_last():
    path = torch.stack([torch.arange(5.0), torch.arange(5.0) ** 2], dim=1)
    drawn = path_plots.plane_paths({"curve": path, "again": path})
    assert len(drawn.axes) == 2
    assert drawn.axes[0].lines[1].get_xydata().tolist() == [[0, 0], [2, 4], [4, 16]]


def test_entries_show_six_cosines_in_colour():
    cosines = torch.full((3, 3, 3), -0.25)
    drawn = path_plots.entries(cosines)
    shown = [text.get_text() for axes in drawn.axes for text in axes.texts]
    assert len(shown) == 27 and shown.count("\N{MINUS SIGN}0.25") == 6


def test_kites_show_the_angles_of_both_triangles():
    points = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [2.0, 0.0, 0.0]])
    turned = 3 * points.roll(1, dims=1) + 1
    drawn = path_plots.kites({"same shape": (turned, points), "short": (points * 0.5, points)})
    assert len(drawn.axes) == 2
    seen = words(drawn)
    assert seen.count("expert 90°") == seen.count("student 90°") == 2 and seen.count("45°") == 8
    corners = [line.get_xydata() for line in drawn.axes[1].lines if len(line.get_xdata()) == 3]
    np.testing.assert_allclose(corners, [[[0, 0], [0.5, 0.5], [1, 0]], [[0, 0], [0.25, -0.25], [0.5, 0]]], atol=1e-12)


def test_cosines_over_time_has_a_panel_a_corner():
    drawn = path_plots.cosines_over_time({"without": cloud(20, 3), "with": cloud(20, 3, name="with")})
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["at the start", "at the middle", "at the end"]
    assert list(drawn.axes[1].lines[0].get_ydata()) == cloud(20, 3)[:, 1].tolist()
    assert {"without", "with"} <= set(words(drawn))
