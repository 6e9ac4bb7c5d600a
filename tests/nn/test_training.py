"""The schedule at its corners, and a loop that learns and repeats itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nextmarker.nn import ModelConfig, NetworkConfig, NeXtMarker, TrainingConfig
from nextmarker.nn.loss import nt_xent
from nextmarker.nn.patches import CellTile
from nextmarker.nn.training import fit, learning_rate, random_views, zeros_of_views
from nextmarker.nn.zero import BRIGHT, NOISE, noise_of_empty, respond_at, set_scale


def test_schedule_of_the_paper():
    paper = TrainingConfig(steps=1200)
    rates = np.array([learning_rate(step, paper) for step in range(1200)])
    np.testing.assert_allclose(rates[[0, 49, 99, 100]], [1e-5, 5e-4, 1e-3, 1e-3])
    assert rates[600] == pytest.approx((1e-3 + 1e-4) / 2)
    np.testing.assert_allclose(rates[1100:], 1e-4)
    assert (np.diff(rates[100:1101]) < 0).all()


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_schedule_of_a_short_training(steps):
    rates = [learning_rate(step, TrainingConfig(steps=steps)) for step in range(steps)]
    assert all(1e-4 <= rate <= 1e-3 for rate in rates)


def make_draw(seed, *, noise=True):
    """Cells of two kinds, bright in one of two markers, in one tile, with empty places between them."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.full((400, 400, 2), 0.2)
    if noise:
        pixels = torch.poisson(pixels, generator=generator)
    centres = torch.stack(torch.meshgrid(*2 * [torch.arange(20, 380, 24)], indexing="ij"), -1).reshape(-1, 2)
    kind = torch.arange(len(centres)) % 2
    for (x, y), marker in zip(centres, kind, strict=True):
        pixels[y - 3 : y + 4, x - 3 : x + 4, marker] += torch.poisson(torch.full((7, 7), 6.0), generator=generator)

    def draw(count):
        chosen = torch.randperm(len(centres), generator=generator)[:count]
        places = 20 + 360 * torch.rand(64, 2, generator=generator, dtype=torch.float64)
        return [CellTile(pixels, centres[chosen].double(), 1.0, places=places)]

    return draw


def train(seed, *, start=3.0, axis="log", zero=True, **training):
    torch.manual_seed(0)
    network = NetworkConfig(axis=axis, embedding=16, zero=zero)
    model = NeXtMarker(ModelConfig(("CD3", "CD20"), patch_size=8, network=network), [start, start])
    draw, training = make_draw(0), TrainingConfig(**{"steps": 12, "batch_size": 64, **training})
    set_scale(model, lambda: draw(100))
    loss = fit(model, draw, training, generator=torch.Generator().manual_seed(seed), progress=False)
    return model, loss


@pytest.mark.parametrize("zero", [True, False])
def test_the_loss_falls_and_sigmoids_move(zero):
    model, loss = train(0, steps=40, zero=zero, marker_dropout=0.0)
    assert loss.shape == (40,)
    assert loss[-5:].mean() < loss[:5].mean() - 0.1
    assert model.normalization.log_centre.abs().min() > 0
    assert not model.training


@pytest.mark.parametrize("zero", [True, False])
def test_the_same_seed_gives_the_same_model(zero):
    first, again, other = (train(seed, zero=zero)[0].digest() for seed in (0, 0, 1))
    assert first == again != other


def test_every_step_is_taken_at_its_learning_rate(monkeypatch):
    plain, rates = torch.optim.Adam.step, []

    def step(optimizer, *arguments):
        rates.append({group["lr"] for group in optimizer.param_groups})
        return plain(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    schedule = {"steps": 8, "batch_size": 16, "warmup": 0.25, "cooldown": 0.25}
    train(0, **schedule)
    assert rates == [{learning_rate(number, TrainingConfig(**schedule))} for number in range(8)]


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
    network = NetworkConfig(axis=axis, embedding=16)
    model = NeXtMarker(ModelConfig(("CD3", "CD20"), patch_size=8, network=network), [3.0, 3.0])
    during = []
    model.encoder.stem.weight.register_hook(lambda _: during.append(torch.backends.cudnn.deterministic))
    training = TrainingConfig(steps=2, batch_size=16)
    fit(model, make_draw(0), training, generator=torch.Generator().manual_seed(0), progress=False)
    assert during
    assert all(during)
    assert not torch.backends.cudnn.deterministic


def test_views_are_rotated_flipped_and_scaled_within_the_range_asked_for():
    """A view of the planes x and y is again two planes, and their gradients are the transform."""
    y, x = torch.meshgrid(*2 * [torch.arange(60.0)], indexing="ij")
    tile = CellTile(torch.stack([x, y], -1), torch.full((400, 2), 30.3, dtype=torch.float64), 1.0)
    training = TrainingConfig(
        size_scaling=(0.5, 1.4), intensity_scaling=(1.0, 1.0), marker_dropout=0.0, swap_surroundings=False
    )
    generator = torch.Generator().manual_seed(0)
    views = torch.cat([random_views([tile, tile], 8, training, generator)[0] for _ in range(2)])
    transforms = torch.stack([views[..., 0, 1] - views[..., 0, 0], views[..., 1, 0] - views[..., 0, 0]], -1)
    assert len(transforms.flatten(1).unique(dim=0)) == 2 * 2 * 400  # another for every cell of every tile and view
    determinant = torch.linalg.det(transforms)
    scale = determinant.abs().rsqrt().sort().values
    assert scale[0] == pytest.approx(0.5, rel=0.02)
    assert scale[-1] == pytest.approx(1.4, rel=0.02)
    assert 0.4 < (determinant < 0).float().mean() < 0.6
    angle = torch.atan2(transforms[:, 1, 1], transforms[:, 0, 1])
    assert np.histogram(angle, 8, (-np.pi, np.pi))[0].min() > 150  # 1,600 in eight parts


def what_the_model_sees(**training):
    """Raw counts that reach the model in one step, by side of the patch, where marker m has 100 ** m everywhere."""
    network = NetworkConfig(embedding=16, zero=False)
    model = NeXtMarker(ModelConfig(("CD3", "CD20"), patch_size=10, network=network), [3.0, 300.0])
    seen, plain = {}, model.respond

    def respond(counts):
        seen.setdefault(counts.shape[-1], []).append(counts.detach())
        return plain(counts)

    model.respond = respond
    tile = CellTile(torch.tensor([1.0, 100.0]).expand(60, 60, 2), torch.full((32, 2), 30.3, dtype=torch.float64), 1.0)
    training = TrainingConfig(**{"steps": 1, "batch_size": 32, **training})
    fit(model, lambda _: [tile], training, generator=torch.Generator().manual_seed(0), progress=False)
    return {side: torch.cat(counts) for side, counts in seen.items()}


@pytest.mark.parametrize("views", [1, 2, 5])
def test_a_batch_holds_all_views_of_all_patch_sizes(views):
    seen = what_the_model_sees(views=views, patch_scales=(1.0, 0.8, 0.6))
    assert {side: len(counts) for side, counts in seen.items()} == dict.fromkeys((10, 8, 6), views * 32)


def test_raw_counts_are_scaled_before_the_sigmoid_per_cell_and_marker():
    counts = (
        what_the_model_sees(intensity_scaling=(0.5, 2.0), marker_dropout=0.0)[10]
        / torch.tensor([1.0, 100.0])[:, None, None]
    )
    gains = counts[:, :, 0, 0]  # two views of 32 cells, and two markers
    torch.testing.assert_close(counts, gains[..., None, None].expand_as(counts))
    assert gains.min() >= 0.5
    assert gains.max() <= 2
    assert gains.flatten().unique().numel() == gains.numel()
    assert gains.log().std(0).min() > 0.3  # uniform from log(1 / 2) to log(2): 0.4


def test_markers_are_hidden_per_cell_and_view_and_wholly():
    counts = what_the_model_sees(views=4, marker_dropout=0.4)[10]
    hidden = counts[:, :, 0, 0] == 0  # four views of 32 cells, and two markers
    assert torch.equal(counts == 0, hidden[..., None, None].expand_as(counts))
    assert 0.25 < hidden.float().mean() < 0.4  # 0.4 for each, without the cells of which both would be hidden
    assert not hidden.all(1).any()
    first, second, *_ = hidden.split(32)
    assert not torch.equal(first, second)
    assert all(0 < cells_hidden < 32 for cells_hidden in first.sum(0))


@pytest.mark.parametrize("swap_surroundings", [True, False])
def test_cells_are_seen_in_the_surroundings_of_others(swap_surroundings):
    """Cells of 1 to 40 counts: their own count at the centre of a view, that of another in its corners."""
    pixels = torch.arange(1.0, 41).repeat_interleave(60).expand(60, 2400)[..., None]
    centres = torch.stack([torch.arange(30.3, 2400, 60), torch.full((40,), 30.3)], -1).double()
    training = TrainingConfig(intensity_scaling=(1.0, 1.0), marker_dropout=0.0, swap_surroundings=swap_surroundings)
    view, _ = random_views([CellTile(pixels, centres, 1.0)], 15, training, torch.Generator().manual_seed(0))
    own = torch.arange(1.0, 41)
    torch.testing.assert_close(view[:, 0, 7, 7], own, rtol=0, atol=0.4)
    assert (((view[:, 0, 0, 0] - own).abs() > 0.5) == swap_surroundings).all()


def test_a_hidden_marker_has_no_activation_and_no_gradient():
    torch.manual_seed(0)
    model = NeXtMarker(ModelConfig(("CD3", "CD20"), patch_size=10, network=NetworkConfig(embedding=16)), [3.0, 300.0])
    tile = CellTile(torch.tensor([1.0, 100.0]).expand(60, 60, 2), torch.full((200, 2), 30.3, dtype=torch.float64), 1.0)
    generator = torch.Generator().manual_seed(0)
    view, gains = random_views([tile], 10, TrainingConfig(marker_dropout=0.3), generator)
    assert torch.equal(view == 0, (gains == 0).expand_as(view))
    view[:, 0] = 0
    interpretability, embedding = model(view, torch.full((2, 8), 1e-4))
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
        {"marker_dropout": -0.1},
        {"marker_dropout": 1.0},
        {"marker_dropout": float("nan")},
        {"temperature": float("nan")},
        {"learning_rate": 0.0},
        {"final_learning_rate": -1e-4},
        {"warmup": -0.1},
        {"warmup": 0.6, "cooldown": 0.6},
        {"penalty": "none"},
        {"sigmoid_start": 0.0},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ValueError, match=rf"({'|'.join(wrong)})=.* must be "):
        TrainingConfig(**wrong)


def test_one_view_of_each_of_several_sizes_is_enough():
    assert TrainingConfig(views=1, patch_scales=(1.0, 0.8)).views == 1


def test_a_loss_that_is_not_finite_stops_the_training():
    with pytest.raises(ValueError, match=r"step \d is (nan|inf).*learning_rate="):
        train(0, learning_rate=1e30)


def flat_crops(levels, cells, markers=2):
    """A tile with the same counts everywhere, twice as many of each marker as of the one before."""
    pixels = levels * 2.0 ** torch.arange(markers).expand(60, 60, markers)
    return CellTile(
        pixels,
        torch.full((cells, 2), 30.3, dtype=torch.float64),
        1.0,
        places=20 + 20 * torch.rand(9, 2, dtype=torch.float64),
    )


@pytest.fixture
def model():
    torch.manual_seed(0)
    return NeXtMarker(ModelConfig(("CD3", "CD20"), patch_size=8, network=NetworkConfig(embedding=16)), [3.0, 6.0])


@torch.inference_mode()
def expected_zeros(model, level, gain):
    """Response of flat patches, scaled by factors (..., markers)."""
    counts = level * gain * torch.tensor([1.0, 2.0])
    flat = counts.reshape(-1, 2, 1, 1).expand(-1, 2, 8, 8)
    return model.respond(flat).reshape(*gain.shape, -1)


def zeros(model, tile, gains, **training):
    training = TrainingConfig(**training)
    return zeros_of_views(model, tile, 8, gains, training, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bounds", [(0.5, 2.0), (0.2, 1.5), (0.9, 1.1)])
def test_the_zero_of_a_view_is_that_of_empty_places_scaled_alike(model, bounds):
    low, high = bounds
    factors = torch.tensor([low, (low * high) ** 0.5, high])
    gains = torch.cartesian_prod(factors, factors).reshape(9, 1, 2)
    found = zeros(model, [flat_crops(1.0, 9)], gains, intensity_scaling=bounds)
    assert found.shape == (9, 1, 2, 8)
    torch.testing.assert_close(found, expected_zeros(model, 1.0, gains), rtol=1e-3, atol=1e-5)


def test_between_these_factors_the_zero_is_interpolated(model):
    gains = torch.exp2(torch.linspace(-1, 1, 41))[:, None, None].expand(41, 1, 2)
    found = zeros(model, [flat_crops(1.0, 41)], gains)
    torch.testing.assert_close(found, expected_zeros(model, 1.0, gains), rtol=0.06, atol=1e-5)
    assert (found.sum(3).diff(dim=0) > 0).all()


def test_the_zero_of_a_hidden_marker_is_exactly_zero(model):
    gains = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    found = zeros(model, [flat_crops(1.0, 1)], gains)
    assert (found[0, 0, 1] == 0).all()
    assert (found[0, 1, 0] == 0).all()
    torch.testing.assert_close(found[gains > 0], expected_zeros(model, 1.0, gains)[gains > 0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_one_factor_for_all_has_one_zero(model, factor):
    gains = torch.full((4, 2, 2), factor)
    found = zeros(model, [flat_crops(1.0, 4)], gains, intensity_scaling=(factor, factor))
    torch.testing.assert_close(found, expected_zeros(model, 1.0, gains), rtol=1e-4, atol=1e-6)


def test_every_cell_has_the_zero_of_its_own_tile(model):
    levels, cells = (0.5, 4.0, 1.0), (2, 1, 3)
    gains = torch.exp2(torch.randint(-1, 2, (6, 2, 2)).float())
    found = zeros(model, [flat_crops(level, count) for level, count in zip(levels, cells, strict=True)], gains)
    expected = [expected_zeros(model, level, gain) for level, gain in zip(levels, gains.split(cells), strict=True)]
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-3, atol=1e-5)


def test_training_subtracts_from_each_view_of_each_cell_its_own_zero(model):
    """Where tiles show background only, nothing is left of any cell in any view; tiles differ in their background."""
    seen, plain = [], model.interpret
    model.interpret = lambda response, zero: seen.append((response, zero)) or plain(response, zero)
    tile = [flat_crops(0.5, 5), flat_crops(4.0, 2), flat_crops(1.0, 9)]
    training = TrainingConfig(views=3, steps=1, batch_size=16, intensity_scaling=(0.7, 0.7), marker_dropout=0.4)
    fit(model, lambda _: tile, training, generator=torch.Generator().manual_seed(0), progress=False)
    ((response, zero),) = seen
    assert response.shape == zero.shape == (3 * 16, 2, 8)
    hidden = (response == 0).all(2)
    assert 0 < hidden.sum() < hidden.numel()
    torch.testing.assert_close(response, zero, rtol=1e-4, atol=1e-6)


def test_a_model_without_a_zero_needs_no_places():
    tile = CellTile(torch.rand(60, 60, 2), torch.full((16, 2), 30.3, dtype=torch.float64), 1.0)
    training = TrainingConfig(steps=1, batch_size=16)
    for zero in (False, True):
        network = NetworkConfig(embedding=16, zero=zero)
        model = NeXtMarker(ModelConfig(("CD3", "CD20"), patch_size=8, network=network), [3.0, 3.0])
        generator = torch.Generator().manual_seed(0)
        if zero:
            with pytest.raises(ValueError, match="places"):
                fit(model, lambda _: [tile], training, generator=generator, progress=False)
        else:
            assert np.isfinite(fit(model, lambda _: [tile], training, generator=generator, progress=False)).all()


@torch.inference_mode()
def test_a_response_does_not_depend_on_the_others(model):
    (tile,) = make_draw(0)(150)
    together = respond_at(model, tile)
    assert together.shape == (150, 2, 8)
    first = replace(tile, centres=tile.centres[:100])
    torch.testing.assert_close(respond_at(model, first), together[:100], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        respond_at(model, replace(tile, places=tile.centres).at_places()), together, rtol=1e-4, atol=1e-6
    )


@torch.inference_mode()
@pytest.mark.parametrize("zero", [True, False])
def test_the_scale_is_a_share_of_the_bright_signal_of_all_images(zero):
    """Beside a background without noise, whose response is known; half of the cells show a marker."""
    torch.manual_seed(0)
    network = NetworkConfig(embedding=16, zero=zero, log_threshold=0.1)
    model = NeXtMarker(ModelConfig(("CD3", "CD20"), patch_size=8, network=network), [3.0, 3.0])
    (tile,) = make_draw(0, noise=False)(200)
    brighter = replace(tile, pixels=10 * tile.pixels)
    for shown in ([tile], [brighter], [tile, brighter]):
        set_scale(model, lambda shown=shown: shown)
        signal = [
            respond_at(model, crop) - zero * model.respond(crop.pixels.min().expand(1, 2, 8, 8)) for crop in shown
        ]
        bright = torch.cat(signal).mean(2).quantile(BRIGHT, dim=0)
        torch.testing.assert_close(model.threshold, 0.1 * bright, rtol=1e-3, atol=0)


@torch.inference_mode()
def test_noise_of_the_background_lifts_the_scale():
    thresholds = []
    for noise in (False, True):
        torch.manual_seed(0)
        network = NetworkConfig(embedding=16, log_threshold=0.01)
        model = NeXtMarker(ModelConfig(("CD3", "CD20"), patch_size=8, network=network), [3.0, 3.0])
        (tile,) = make_draw(0, noise=noise)(200)
        set_scale(model, lambda tile=tile: [tile])
        thresholds.append(model.threshold)
    assert (thresholds[1] > 3 * thresholds[0]).all()
    torch.testing.assert_close(thresholds[1], NOISE * noise_of_empty(respond_at(model, tile.at_places())))


def test_a_linear_scale_is_not_set():
    model = NeXtMarker(
        ModelConfig(("CD3", "CD20"), 8, network=NetworkConfig(embedding=16, log_threshold=None)), [3.0, 3.0]
    )
    before = model.threshold.clone()
    set_scale(model, lambda: make_draw(0)(20))
    assert torch.equal(model.threshold, before)
