"""The schedule at its corners, and a loop that learns and repeats itself."""

import numpy as np
import pytest
import torch

from nextmarker.nn import Architecture, Network, NeXtMarker, Settings
from nextmarker.nn.loss import nt_xent
from nextmarker.nn.training import fit, learning_rate, random_views
from nextmarker.nn.views import Crops


def test_schedule_of_the_paper():
    paper = Settings(steps=1200)
    rates = np.array([learning_rate(step, paper) for step in range(1200)])
    np.testing.assert_allclose(rates[[0, 49, 99, 100]], [1e-5, 5e-4, 1e-3, 1e-3])
    assert rates[600] == pytest.approx((1e-3 + 1e-4) / 2)
    np.testing.assert_allclose(rates[1100:], 1e-4)
    assert (np.diff(rates[100:1101]) < 0).all()


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_schedule_of_a_short_training(steps):
    rates = [learning_rate(step, Settings(steps=steps)) for step in range(steps)]
    assert all(1e-4 <= rate <= 1e-3 for rate in rates)


def make_draw(seed):
    """Cells of two kinds, bright in one of two markers, in one tile."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.poisson(torch.full((200, 200, 2), 0.2), generator=generator)
    centres = torch.stack(torch.meshgrid(*2 * [torch.arange(20, 180, 10)], indexing="ij"), -1).reshape(-1, 2)
    kind = torch.arange(len(centres)) % 2
    for (x, y), marker in zip(centres, kind, strict=True):
        pixels[y - 3 : y + 4, x - 3 : x + 4, marker] += torch.poisson(torch.full((7, 7), 6.0), generator=generator)

    def draw(count):
        chosen = torch.randperm(len(centres), generator=generator)[:count]
        return [Crops(pixels, centres[chosen].double(), 1.0)]

    return draw


def train(seed, *, start=3.0, axis="log", **settings):
    torch.manual_seed(0)
    network = Network(axis=axis, embedding=16)
    model = NeXtMarker(Architecture(("CD3", "CD20"), patch_size=8, network=network), [start, start])
    settings = Settings(**{"steps": 12, "batch_size": 64, **settings})
    loss = fit(model, make_draw(0), settings, seed=torch.Generator().manual_seed(seed), progress=False)
    return model, loss


def test_the_loss_falls_and_sigmoids_move():
    model, loss = train(0, steps=30)
    assert loss.shape == (30,)
    assert loss[-5:].mean() < loss[:5].mean() - 0.1
    assert model.normalization.log_centre.abs().min() > 0
    assert not model.training


def test_the_same_seed_gives_the_same_model():
    first, again, other = (train(seed)[0].digest() for seed in (0, 0, 1))
    assert first == again != other


def test_every_step_is_taken_at_its_learning_rate(monkeypatch):
    plain, rates = torch.optim.Adam.step, []

    def step(optimizer, *arguments):
        rates.append({group["lr"] for group in optimizer.param_groups})
        return plain(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    schedule = {"steps": 8, "batch_size": 16, "ramp": 0.25, "tail": 0.25}
    train(0, **schedule)
    assert rates == [{learning_rate(number, Settings(**schedule))} for number in range(8)]


@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_the_loss_is_that_of_the_projections_at_the_temperature_asked_for(monkeypatch, temperature):
    seen = []

    def record(projections, temperature):
        seen.append(projections.detach())
        return nt_xent(projections, temperature)

    monkeypatch.setattr("nextmarker.nn.training.nt_xent", record)
    _, loss = train(0, steps=2, views=3, temperature=temperature)
    assert [projections.shape for projections in seen] == [(64, 3, 128)] * 2
    np.testing.assert_allclose(loss, [nt_xent(projections, temperature) for projections in seen], rtol=1e-5)


@pytest.mark.parametrize("axis", ["log", "linear"])
def test_gradients_are_computed_in_one_order_on_a_gpu_and_its_setting_is_given_back(axis):
    network = Network(axis=axis, embedding=16)
    model = NeXtMarker(Architecture(("CD3", "CD20"), patch_size=8, network=network), [3.0, 3.0])
    during = []
    model.encoder.stem.weight.register_hook(lambda _: during.append(torch.backends.cudnn.deterministic))
    settings = Settings(steps=2, batch_size=16)
    fit(model, make_draw(0), settings, seed=torch.Generator().manual_seed(0), progress=False)
    assert during
    assert all(during)
    assert not torch.backends.cudnn.deterministic


def test_views_are_rotated_flipped_and_scaled_within_the_range_asked_for():
    """A view of the planes x and y is again two planes, and their gradients are the transform."""
    y, x = torch.meshgrid(*2 * [torch.arange(60.0)], indexing="ij")
    crops = Crops(torch.stack([x, y], -1), torch.full((400, 2), 30.3, dtype=torch.float64), 1.0)
    settings = Settings(size_scaling=(0.5, 1.4), intensity_scaling=(1.0, 1.0), hidden_markers=0.0)
    seed = torch.Generator().manual_seed(0)
    views = torch.cat([random_views([crops, crops], 8, settings, seed) for _ in range(2)])
    transforms = torch.stack([views[..., 0, 1] - views[..., 0, 0], views[..., 1, 0] - views[..., 0, 0]], -1)
    assert len(transforms.flatten(1).unique(dim=0)) == 2 * 2 * 400  # another for every cell of every tile and view
    determinant = torch.linalg.det(transforms)
    scale = determinant.abs().rsqrt().sort().values
    assert scale[0] == pytest.approx(0.5, rel=0.02)
    assert scale[-1] == pytest.approx(1.4, rel=0.02)
    assert 0.4 < (determinant < 0).float().mean() < 0.6
    angle = torch.atan2(transforms[:, 1, 1], transforms[:, 0, 1])
    assert np.histogram(angle, 8, (-np.pi, np.pi))[0].min() > 150  # 1,600 in eight parts


def what_the_model_sees(**settings):
    """Raw counts that reach the model in one step, by side of the patch, where marker m has 100 ** m everywhere."""
    model = NeXtMarker(Architecture(("CD3", "CD20"), patch_size=10, network=Network(embedding=16)), [3.0, 300.0])
    seen = {}
    model.register_forward_pre_hook(
        lambda _, counts: seen.setdefault(counts[0].shape[-1], []).append(counts[0].detach())
    )
    crops = Crops(torch.tensor([1.0, 100.0]).expand(60, 60, 2), torch.full((32, 2), 30.3, dtype=torch.float64), 1.0)
    settings = Settings(**{"steps": 1, "batch_size": 32, **settings})
    fit(model, lambda _: [crops], settings, seed=torch.Generator().manual_seed(0), progress=False)
    return {side: torch.cat(counts) for side, counts in seen.items()}


@pytest.mark.parametrize("views", [1, 2, 5])
def test_a_batch_holds_all_views_of_all_patch_sizes(views):
    seen = what_the_model_sees(views=views, patch_scales=(1.0, 0.8, 0.6))
    assert {side: len(counts) for side, counts in seen.items()} == dict.fromkeys((10, 8, 6), views * 32)


def test_raw_counts_are_scaled_before_the_sigmoid_per_cell_and_marker():
    counts = (
        what_the_model_sees(intensity_scaling=(0.5, 2.0), hidden_markers=0.0)[10]
        / torch.tensor([1.0, 100.0])[:, None, None]
    )
    gains = counts[:, :, 0, 0]  # two views of 32 cells, and two markers
    torch.testing.assert_close(counts, gains[..., None, None].expand_as(counts))
    assert gains.min() >= 0.5
    assert gains.max() <= 2
    assert gains.flatten().unique().numel() == gains.numel()
    assert gains.log().std(0).min() > 0.3  # uniform from log(1 / 2) to log(2): 0.4


def test_markers_are_hidden_per_cell_and_view_and_wholly():
    counts = what_the_model_sees(views=4, hidden_markers=0.4)[10]
    hidden = counts[:, :, 0, 0] == 0  # four views of 32 cells, and two markers
    assert torch.equal(counts == 0, hidden[..., None, None].expand_as(counts))
    assert 0.25 < hidden.float().mean() < 0.4  # 0.4 for each, without the cells of which both would be hidden
    assert not hidden.all(1).any()
    first, second, *_ = hidden.split(32)
    assert not torch.equal(first, second)
    assert all(0 < cells_hidden < 32 for cells_hidden in first.sum(0))


def test_a_hidden_marker_has_no_activation_and_no_gradient():
    torch.manual_seed(0)
    model = NeXtMarker(Architecture(("CD3", "CD20"), patch_size=10, network=Network(embedding=16)), [3.0, 300.0])
    crops = Crops(torch.tensor([1.0, 100.0]).expand(60, 60, 2), torch.full((200, 2), 30.3, dtype=torch.float64), 1.0)
    seed = torch.Generator().manual_seed(0)
    view = random_views([crops], 10, Settings(hidden_markers=0.3), seed)
    view[:, 0] = 0
    interpretability, embedding = model(view)
    hidden = (view == 0).all(3).all(2)
    assert (interpretability[hidden] == 0).all()
    assert (interpretability[~hidden].sum(1) > 0).all()
    embedding.sum().backward()
    assert model.normalization.log_centre.grad[0] == 0
    assert model.normalization.log_centre.grad[1] != 0


def test_several_patch_sizes_and_views():
    _, loss = train(0, steps=3, views=3, patch_scales=(1.0, 0.8, 0.6))
    assert np.isfinite(loss).all()


def test_the_penalty_moves_the_sigmoids_and_is_no_part_of_the_loss():
    """Eq. 2 wants x' to be 1 at most, and these sigmoids start at 2."""
    relative, relative_loss = train(0, steps=1, axis="linear", start=1.0)
    paper, paper_loss = train(0, steps=1, axis="linear", start=1.0, penalty="paper")
    assert paper_loss[0] == relative_loss[0]
    assert (paper.normalization.log_slope < 0).all()
    assert not torch.equal(paper.normalization.log_slope, relative.normalization.log_slope)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": 2.5},
        {"batch_size": 1},
        {"batch_size": 64.0},
        {"views": 1},
        {"views": 2.5},
        {"views": 0, "patch_scales": (1.0, 0.8, 0.6)},
        {"patch_scales": ()},
        {"patch_scales": (1.2,)},
        {"intensity_scaling": (2.0, 0.5)},
        {"size_scaling": (0.0, 1.0)},
        {"hidden_markers": -0.1},
        {"hidden_markers": 1.0},
        {"hidden_markers": float("nan")},
        {"temperature": float("nan")},
        {"learning_rate": 0.0},
        {"final_learning_rate": -1e-4},
        {"ramp": -0.1},
        {"ramp": 0.6, "tail": 0.6},
        {"penalty": "none"},
        {"start": 0.0},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ValueError, match=rf"({'|'.join(wrong)})=.* must be "):
        Settings(**wrong)


def test_one_view_of_each_of_several_sizes_is_enough():
    assert Settings(views=1, patch_scales=(1.0, 0.8)).views == 1


def test_a_loss_that_is_not_finite_stops_the_training():
    with pytest.raises(ValueError, match=r"loss of step \d is (nan|inf).*Lower the learning rate"):
        train(0, learning_rate=1e30)
