"""What is computed for each image: once, kept at once, and found again only for the same pixels."""

from collections import Counter

import numpy as np
import pytest
import xarray as xr

from nextmarker._images import Job, map_images

IMAGES = {name: np.random.default_rng(seed).integers(0, 99, (2, 40, 50)) for seed, name in enumerate("abc")}


class Analysis:
    """Sums images, counting how often, and fails at some."""

    def __init__(self, folder, failing=""):
        self.images = {name: pixels.copy() for name, pixels in IMAGES.items()}
        self.folder, self.failing, self.calls, self.factor = folder, failing, Counter(), 1

    def sum(self, name, advance):
        self.calls[name] += 1
        advance(1)
        if name in self.failing:
            raise KeyboardInterrupt
        return {"sum": np.array(self.factor * self.images[name].sum())}

    def job(self, name):
        pixels = xr.DataArray(self.images[name], dims=("c", "y", "x"), coords={"c": ["DNA", "CD3"]})
        return Job(name, pixels, lambda: (name,), 2000, lambda: {"factor": self.factor})

    def run(self):
        jobs = [self.job(name) for name in self.images]
        results = map_images(
            self.sum, jobs, step="embed", title="summing", unit="px", progress=False, checkpoint=self.folder
        )
        return {jobs[number].image: int(result["sum"]) for number, result in results}


@pytest.fixture
def interrupted(tmp_path):
    """A folder in which the result of the first image is kept."""
    analysis = Analysis(tmp_path, failing="b")
    with pytest.raises(KeyboardInterrupt):
        analysis.run()
    assert analysis.calls == {"a": 1, "b": 1}
    return tmp_path


def test_nothing_is_done_twice(interrupted):
    analysis = Analysis(interrupted)
    assert analysis.run() == Analysis(None).run() == {name: image.sum() for name, image in IMAGES.items()}
    assert analysis.calls == {"b": 1, "c": 1}
    analysis.run()
    assert analysis.calls == {"b": 1, "c": 1}


def test_without_a_folder_everything_is_computed():
    analysis = Analysis(None)
    analysis.run()
    analysis.run()
    assert analysis.calls == {"a": 2, "b": 2, "c": 2}


@pytest.mark.parametrize("change", ["pixels", "type", "name", "settings", "size", "damaged"])
def test_a_result_that_does_not_belong_is_computed_again(interrupted, change):
    analysis = Analysis(interrupted)
    if change == "pixels":
        analysis.images["a"][1, 20, 25] += 1
    elif change == "type":
        analysis.images["a"] = analysis.images["a"].astype(np.float32)
    elif change == "name":
        analysis.images = {{"a": "A"}.get(name, name): image for name, image in analysis.images.items()}
    elif change == "settings":
        analysis.factor = 2
    elif change == "size":
        analysis.images["a"] = np.pad(analysis.images["a"], ((0, 0), (0, 0), (0, 1)))
    else:
        (kept,) = (interrupted / "embed").glob("*.npz")
        kept.write_bytes(kept.read_bytes()[:-30])
    expected = {name: analysis.factor * image.sum() for name, image in analysis.images.items()}
    assert analysis.run() == expected
    assert analysis.calls == dict.fromkeys(expected, 1)


def test_the_bar_shows_the_work_of_kept_and_new_results(interrupted, monkeypatch):
    shown = []

    class Bar:
        n = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            shown.append(self.n)

        def update(self, amount):
            self.n += amount

    def make(total, *_, **__):
        shown.append(total)
        return Bar()

    monkeypatch.setattr("nextmarker._images.progress_bar", make)
    Analysis(interrupted).run()
    assert shown == [6000, 6000]
