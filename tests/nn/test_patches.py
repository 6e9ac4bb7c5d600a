"""Views against images whose rotated, scaled and shifted form is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from nextmarker.nn.cpu_patches import can_interpolate, interpolate_on_cpu
from nextmarker.nn.patches import (
    CellTile,
    cut_patches,
    fixed_rotations,
    interpolate,
    patch_margin,
    random_gains,
    random_transforms,
    swap_surroundings,
)


def rotation(degrees):
    angle = torch.tensor(math.radians(degrees))
    return torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])[None]


def crops_of(function, centre, step=1.0, size=41, dtype=torch.float32):
    """A tile that shows a function of (x, y), and one cell in it."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return CellTile(function(x, y)[..., None].to(dtype), torch.tensor([centre], dtype=torch.float64), step)


IDENTITY = torch.eye(2)[None]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.float32])
def test_without_transformation_an_odd_patch_is_a_slice(dtype):
    tile = crops_of(lambda x, y: (x * 3 + y) % 251, (20, 17), dtype=dtype)
    patch = cut_patches(tile, 5, IDENTITY)
    assert patch.dtype == torch.float32
    torch.testing.assert_close(patch[0, 0], tile.pixels[15:20, 18:23, 0].float())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int64, torch.float32, torch.float64])
def test_compiled_interpolation_gives_the_numbers_of_torch(dtype):
    generator = torch.Generator().manual_seed(0)
    flat = (250 * torch.rand(30 * 20, 5, generator=generator)).to(dtype)
    index = torch.randint(0, 28 * 20, (7, 9), generator=generator)
    right, below = torch.rand(2, 7, 9, generator=generator)
    assert can_interpolate(flat)
    assert not can_interpolate(flat.half())
    ours = interpolate_on_cpu(flat, 20, index, right, below)
    torch.testing.assert_close(ours, interpolate(flat, 20, index, right, below), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("centre", [(20.0, 2.0), (39.0, 39.0)])
def test_a_patch_beyond_the_pixels_of_a_tile_is_an_error(centre):
    tile = crops_of(lambda x, y: x + y, centre)
    with pytest.raises(IndexError, match="beyond the pixels"):
        cut_patches(tile, 9, IDENTITY)


def test_quarter_turn_is_numpys():
    tile = crops_of(lambda x, y: (x * 7 + y * 3) % 100, (20, 20))
    straight, turned = (cut_patches(tile, 7, matrix)[0, 0].numpy() for matrix in (IDENTITY, rotation(90)))
    np.testing.assert_allclose(turned, np.rot90(straight), atol=1e-3)


@pytest.mark.parametrize("degrees", [17, 45, 200])
@pytest.mark.parametrize(("scale", "step"), [(1.0, 1.0), (1.4, 1.0), (0.7, 2.0)])
def test_a_plane_stays_a_plane_under_any_transformation(degrees, scale, step):
    """Bilinear interpolation is exact on a plane, so the patch has a closed form."""
    tile = crops_of(lambda x, y: 2.0 * x + 5.0 * y, (20.3, 19.6), step)
    matrix = rotation(degrees) / scale
    patch = cut_patches(tile, 6, matrix)[0, 0].numpy()
    row, column = np.indices((6, 6)) - 2.5
    offset = step * np.stack([column, row], -1) @ matrix[0].numpy().T
    expected = 2 * (20.3 + offset[..., 0]) + 5 * (19.6 + offset[..., 1])
    np.testing.assert_allclose(patch, expected, rtol=1e-5)


def test_a_cell_gives_the_same_patch_in_every_tile():
    whole = torch.rand(60, 60, 3)
    centre = torch.tensor([[30.37, 28.81]], dtype=torch.float64)
    matrix = rotation(33) / 1.2
    part = CellTile(whole[10:50, 15:55].contiguous(), centre - torch.tensor([15, 10]), 1.0)
    assert torch.equal(cut_patches(CellTile(whole, centre, 1.0), 9, matrix), cut_patches(part, 9, matrix))


def test_an_offset_is_taken_off_and_nothing_falls_below_zero():
    pixels = torch.randint(95, 400, (41, 41, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint16)
    tile = CellTile(pixels, torch.tensor([[20.3, 19.6], [18.0, 22.5]], dtype=torch.float64), 1.0)
    matrix = rotation(33).expand(2, 2, 2)
    offset = torch.tensor([0.0, 100.0, 250.0])
    above = cut_patches(replace(tile, offset=offset), 9, matrix)
    expected = cut_patches(tile, 9, matrix) - offset[:, None, None]
    assert (expected < 0).any()
    torch.testing.assert_close(above, expected.clamp(min=0))


def test_an_image_with_an_offset_gives_the_patches_of_the_image_without():
    pixels = torch.poisson(torch.full((41, 41, 2), 3.0), generator=torch.Generator().manual_seed(0))
    centres, offset = torch.tensor([[20.3, 19.6]], dtype=torch.float64), torch.tensor([100.0, 7.0])
    raised = CellTile(pixels + offset, centres, 1.0, offset)
    torch.testing.assert_close(
        cut_patches(raised, 9, rotation(33)),
        cut_patches(CellTile(pixels, centres, 1.0), 9, rotation(33)),
        atol=1e-4,
        rtol=0,
    )


def test_places_stand_in_for_cells():
    centres, places = torch.rand(3, 2, dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64)
    tile = CellTile(torch.rand(41, 41, 1), centres, 1.0, places=places)
    assert tile.at_places().centres is places
    assert tile.centres is centres
    with pytest.raises(ValueError, match="places"):
        CellTile(tile.pixels, centres, 1.0).at_places()


def test_random_transforms_rotate_flip_and_scale_within_range():
    transforms = random_transforms(4000, (0.66, 1.5), torch.Generator().manual_seed(0))
    determinant = torch.linalg.det(transforms)
    assert abs((determinant < 0).float().mean() - 0.5) < 0.03
    scale = determinant.abs().rsqrt()
    assert scale.min() >= 0.66 - 1e-4
    assert scale.max() <= 1.5 + 1e-4
    assert abs(scale.log().mean()) < 0.02  # uniform in the logarithm, which is symmetric here
    product = transforms @ transforms.mT * (scale**2)[:, None, None]
    torch.testing.assert_close(product, torch.eye(2).expand_as(product), atol=1e-5, rtol=1e-5)
    angle = torch.atan2(transforms[:, 1, 1], transforms[:, 0, 1])
    assert np.histogram(angle, 8, (-math.pi, math.pi))[0].min() > 4000 / 8 * 0.8


def test_fixed_rotations_are_evenly_spread_and_off_the_grid():
    rotations = fixed_rotations(4)
    torch.testing.assert_close(rotations[:-1].mT @ rotations[1:], rotation(90).expand(3, 2, 2), atol=1e-6, rtol=0)
    assert rotations.abs().min() > 0.3


def test_gains_are_drawn_per_cell_and_marker():
    gains = random_gains(500, 4, (0.5, 2.0), 0.0, torch.Generator().manual_seed(0))
    assert gains.shape == (500, 4, 1, 1)
    assert gains.min() >= 0.5
    assert gains.max() <= 2
    assert gains.unique().numel() > 1900


@pytest.mark.parametrize("hidden", [0.0, 0.1, 0.5, 0.9])
def test_a_share_of_the_gains_is_exactly_zero(hidden):
    gains = random_gains(4000, 40, (0.5, 2.0), hidden, torch.Generator().manual_seed(0))
    is_hidden = (gains == 0).squeeze().float()
    np.testing.assert_allclose(is_hidden.mean(0), hidden, atol=0.03)  # each marker
    assert is_hidden.sum(1).var() == pytest.approx(40 * hidden * (1 - hidden), abs=0.8)  # as of independent lots
    shown = gains[gains > 0]
    assert shown.min() >= 0.5
    assert shown.max() <= 2
    assert abs(shown.log().mean()) < 0.05  # the lot tells nothing of the factor


@pytest.mark.parametrize(("markers", "hidden_each"), [(1, 0.0), (2, 0.9 - 0.9**2 / 2)])
def test_one_marker_is_shown_in_any_case(markers, hidden_each):
    gains = random_gains(4000, markers, (0.5, 2.0), 0.9, torch.Generator().manual_seed(0))
    assert (gains > 0).any(1).all()
    np.testing.assert_allclose((gains == 0).squeeze((2, 3)).float().mean(0), hidden_each, atol=0.03)


def test_hiding_leaves_the_factors_of_what_is_shown():
    shown, some = (random_gains(50, 4, (0.5, 2.0), hidden, torch.Generator().manual_seed(0)) for hidden in (0.0, 0.5))
    assert 0 < (some == 0).sum() < some.numel()
    torch.testing.assert_close(some[some > 0], shown[some > 0])


@pytest.mark.parametrize(("size", "step", "scaling"), [(10, 1.0, (0.66, 1.5)), (25, 0.5, (1, 1)), (3, 2.0, (0.9, 1.1))])
def test_reach_holds_every_view(size, step, scaling):
    margin = patch_margin(size, step, scaling)
    pixels = torch.rand(2 * margin, 2 * margin, 1)
    centre = torch.tensor([[margin - 1 + 1e-6, margin - 1e-6]], dtype=torch.float64).expand(720, 2)
    angles = torch.cat([rotation(degrees / 2) for degrees in range(720)])
    cut_patches(CellTile(pixels, centre, step), size, angles / min(scaling))  # an index outside raises


def swapped(patches, seed=0):
    return swap_surroundings(patches, torch.Generator().manual_seed(seed))


def test_surroundings_are_those_of_another_cell_and_the_centre_is_its_own():
    own = torch.arange(50.0)
    patches = own[:, None, None, None].expand(50, 3, 21, 21)
    view = swapped(patches)
    other = view[:, 0, 0, 0].round()
    assert torch.equal(other.sort().values, own)  # each surrounds one cell
    assert (other != own).all()
    share = (view[:, 0] - other[:, None, None]) / (own - other)[:, None, None]  # of the cell itself, (50, 21, 21)
    assert share[:, 10, 10].min() > 0.99
    assert share[:, 10, 20].max() < 0.4  # half a patch away
    assert share[:, 0, 0].max() < 0.03
    assert (share[:, 10, 10:].diff(dim=1) < 1e-6).all()
    border = (share[:, 10, 10:] > 0.5).sum(1) / 21  # a little more than the distance where both weigh the same
    assert border.min() >= 0.29
    assert border.max() <= 0.5
    assert len(border.unique()) > 2
    assert torch.equal(view[:, :1].expand_as(view), view)


def test_other_draws_give_other_surroundings():
    patches = torch.rand(20, 2, 9, 9)
    assert torch.equal(swapped(patches), swapped(patches))
    assert not torch.equal(swapped(patches), swapped(patches, seed=1))


def test_where_all_cells_look_alike_nothing_changes_nor_for_a_single_one():
    alike, single = torch.rand(1, 2, 9, 9).expand(20, 2, 9, 9), torch.rand(1, 2, 9, 9)
    torch.testing.assert_close(swapped(alike), alike)
    assert torch.equal(swapped(single), single)
