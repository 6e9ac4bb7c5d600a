import dask.array as da
import numpy as np
import pytest
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import Identity, Scale

import nextmarker as nm
from tests.copies import made_once

MARKERS = ["DNA", "CD3", "CD20"]


def make_images(pixel_sizes=(None, None), *, chunks=(1, 40, 40), markers=MARKERS, dtype=np.uint16):
    """Round cells 10 um wide on a jittered grid, each bright in CD3 or in CD20; the first image is not square."""
    rng = np.random.default_rng(0)
    images, known, cells = {}, {}, {}
    for number, pixel_size in enumerate(pixel_sizes):
        name, um = f"image_{number}", pixel_size or 1.0
        height, width = (int(extent / um) for extent in ((96, 132) if number == 0 else (84, 84)))
        grid = np.stack(np.meshgrid(np.arange(6, width * um - 5, 12), np.arange(6, height * um - 5, 12)), -1)
        centres = (grid.reshape(-1, 2) + rng.uniform(-1, 1, (grid.size // 2, 2))) / um
        y, x = np.mgrid[:height, :width] + 0.5
        rates = np.full((3, height, width), 0.2)
        for index, (cx, cy) in enumerate(centres):
            inside = (x - cx) ** 2 + (y - cy) ** 2 < (5 / um) ** 2
            rates[0, inside], rates[1 + index % 2, inside] = 20, 6
        counts = rng.poisson(rates).astype(dtype)
        order = [MARKERS.index(marker) for marker in markers]
        transformation = Scale([um, um], ("x", "y")) if pixel_size else Identity()
        images[name] = Image2DModel.parse(
            da.from_array(counts[order], chunks),
            dims=("c", "y", "x"),
            c_coords=list(markers),
            transformations={name: transformation},
        )
        cells[name] = centres
        if pixel_size:
            known[name] = pixel_size
    return SpatialData(images=images, attrs={"nextmarker_pixel_size": known}), cells


@made_once
def make_tissue(*args, **kwargs):
    """The images above, with their cells in a table."""
    import pandas as pd

    sdata, cells = make_images(*args, **kwargs)
    frames = [pd.DataFrame(xy - 0.5, columns=["x", "y"]).assign(image=name) for name, xy in cells.items()]
    nm.pp.add_cells(sdata, pd.concat(frames, ignore_index=True))
    return sdata


@pytest.fixture
def tissue():
    return make_tissue()


@pytest.fixture(scope="session")
def training():
    return nm.nn.TrainingConfig(steps=4, batch_size=48)


@pytest.fixture(scope="session")
def model(training):
    return nm.tl.train(make_tissue(), 11, training=training, progress=False)


@pytest.fixture(scope="session")
def make():
    return make_tissue
