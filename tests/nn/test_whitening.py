"""Whitening against views whose covariance is known, and in a model."""

import pytest
import torch

from nextmarker.nn import ModelConfig, NetworkConfig, NeXtMarker, TrainingConfig
from nextmarker.nn.patches import CellTile
from nextmarker.nn.whitening import BACKGROUND, RIDGE, add_background, background_rate, whiten_features, whitening

CELLS = 200


def make_generator():
    return torch.Generator().manual_seed(0)


def draw_views(between, within, markers=2):
    """Views of cells, (20, cells, markers, features), with these standard deviations by feature, turned by marker."""
    generator = make_generator()
    cells = torch.randn(CELLS, markers, len(between), generator=generator) * torch.tensor(between)
    noise = torch.randn(20, CELLS, markers, len(within), generator=generator) * torch.tensor(within)
    turn, _ = torch.linalg.qr(torch.randn(markers, len(within), len(within), generator=generator))
    return torch.einsum("vcmf,mfg->vcmg", cells + noise, turn)


def covariances(views):
    """Within and between cells, each (markers, features, features), float64."""
    views = views.double()
    cells = views.mean(0)
    apart = views - cells
    within = torch.einsum("vcmf,vcmg->mfg", apart, apart) / apart[..., 0, 0].numel()
    centred = cells - cells.mean(0)
    return within, torch.einsum("cmf,cmg->mfg", centred, centred) / CELLS


def test_what_differs_within_cells_is_alike_in_all_directions_and_what_differs_between_them_stays():
    views = draw_views([1.0, 1.0, 1.0], [3.0, 1.0, 2.0])
    weights = whitening(views)
    torch.testing.assert_close(weights, weights.mT)
    after = torch.einsum("vcmf,mfg->vcmg", views.double(), weights)
    (within, between), (within_before, between_before) = covariances(after), covariances(views)
    spread, spread_before = (torch.linalg.eigvalsh(matrix) for matrix in (within, within_before))
    assert (spread_before[:, -1] / spread_before[:, 0] > 7).all()
    alike = spread_before / (spread_before + RIDGE * spread_before.mean(1, keepdim=True))  # 1 but for the ridge
    torch.testing.assert_close(spread / spread[:, -1:], alike / alike[:, -1:])
    trace = torch.diagonal(between, dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(trace, torch.diagonal(between_before, dim1=1, dim2=2).sum(1))


def test_a_direction_that_views_share_weighs_more_than_one_in_which_they_differ():
    views = draw_views([1.0, 1.0], [0.1, 2.0], markers=1)
    within, _ = covariances(views)
    _, directions = torch.linalg.eigh(within[0])
    steady, changing = (direction @ whitening(views)[0] @ direction for direction in directions.T)
    assert steady > 2.5 * changing


@pytest.mark.parametrize("constant", [0.0, 0.7])
def test_a_marker_without_signal_or_alike_in_all_cells_is_left_alone(constant):
    views = draw_views([1.0, 1.0], [0.5, 2.0])
    views[:, :, 1] = constant
    weights = whitening(views)
    torch.testing.assert_close(weights[1], torch.eye(2).double())
    torch.testing.assert_close(weights[:1], whitening(views[:, :, :1]))  # markers do not matter to each other


def make_tile():
    pixels = torch.poisson(4 * torch.rand(120, 120, 2, generator=make_generator()), generator=make_generator())
    centres = 30 + 60 * torch.rand(CELLS, 2, generator=make_generator(), dtype=torch.float64)
    return CellTile(pixels, centres, 1.0, places=centres[:64])


def make_model(zero):
    torch.manual_seed(0)
    network = NetworkConfig(embedding=16, zero=zero)
    return NeXtMarker(ModelConfig(("CD3", "CD20"), patch_size=8, network=network), [3.0, 3.0])


def test_background_is_as_in_empty_places_and_differs_between_views():
    pixels = torch.zeros(60, 60, 2)
    pixels[..., 0] = 3  # everywhere
    pixels[20:40, 20:40, 1] = 50  # in a corner that a place seldom sees
    x, y = torch.meshgrid(*(torch.arange(8.0, 52.0, 4, dtype=torch.float64),) * 2, indexing="xy")
    places = torch.stack([x, y], -1).reshape(-1, 2)
    tile = CellTile(pixels, places[:40], 1.0, places=places)
    rate = background_rate([tile], 6, TrainingConfig(), make_generator())
    torch.testing.assert_close(rate, torch.tensor([3.0, 0.0]).expand(40, 2))
    view = torch.rand(40, 2, 6, 6)
    one, other = ((add_background(view, rate, generator) - view) for generator in (make_generator(), make_generator()))
    assert torch.equal(one, other)
    assert not one[:, 1].any()
    assert one[:, 0].mean().item() == pytest.approx(3 * BACKGROUND / 2, rel=0.2)
    of_cells = one[:, 0].mean((1, 2))
    assert of_cells.min() < 1.5
    assert of_cells.max() > 4.5


@pytest.mark.parametrize("zero", [True, False])
def test_only_the_crosstalk_changes_and_each_marker_by_itself(zero):
    model, before = make_model(zero), make_model(zero)
    whiten_features(model, [make_tile()], TrainingConfig(), generator=make_generator())
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before.state_dict()[name])]
    assert changed == ["crosstalk.weight"]
    for new, old in zip(model.crosstalk_by_marker(), before.crosstalk_by_marker(), strict=True):
        weights = torch.linalg.pinv(old) @ new  # (features, features)
        torch.testing.assert_close(old @ weights, new, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(weights, weights.mT, rtol=1e-2, atol=1e-2)


def test_the_same_seed_gives_the_same_weights():
    models = [make_model(zero=True) for _ in range(3)]
    for model, number in zip(models, (0, 0, 1), strict=True):
        whiten_features(model, [make_tile()], TrainingConfig(), generator=torch.Generator().manual_seed(number))
    one, same, other = (model.crosstalk.weight for model in models)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
