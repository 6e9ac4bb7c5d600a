"""Work on a cluster of two processes: the same bytes as here, also if a worker dies."""

import os
import re
import runpy
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from spatialdata import SpatialData, read_zarr

import nextmarker as nm
from nextmarker._checkpoint import progress
from nextmarker._images import Job, map_images
from nextmarker._workers import active_client, compute_on, reading_scheduler

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:distributed")


@pytest.fixture(scope="module")
def client():
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def test_without_a_client_everything_is_computed_here(monkeypatch):
    assert active_client() is None
    assert reading_scheduler() == "threads"
    monkeypatch.delitem(sys.modules, "distributed", raising=False)
    assert active_client() is None
    assert "distributed" not in sys.modules


def test_a_task_computes_and_reads_by_itself(client):
    def in_task():  # functions in functions are sent whole, since workers do not find this file
        return active_client() is None, reading_scheduler()

    with client.as_current():
        assert active_client() is client
        assert reading_scheduler() == "threads"  # pixels that are read here are not sent around
        assert client.submit(in_task, pure=False).result() == (True, "synchronous")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two images with masks on disk, and a model."""
    folder = tmp_path_factory.mktemp("workers")
    sdata = nm.datasets.dense_tissue(n_images=2, n_cells=60)
    nm.io.write(SpatialData(images=dict(sdata.images), labels=dict(sdata.labels)), folder / "images.zarr")
    markers = tuple(sdata["dense_1"]["c"].to_numpy().tolist())
    torch.manual_seed(0)
    model = nm.nn.NeXtMarker(nm.nn.ModelConfig(markers, patch_size=10), [5.0] * len(markers))
    model.save(folder / "model.safetensors")
    return folder


def analyse(store, **arguments):
    sdata = read_zarr(store / "images.zarr")
    nm.pp.detect_cells(sdata, ["DNA"], progress=False, **arguments)
    nm.pp.integrate(sdata, "masks", statistics=["mean", "median"], progress=False)
    nm.tl.embed(sdata, store / "model.safetensors", progress=False, **arguments)
    return sdata


def content(sdata):
    cells, objects = sdata["table"], sdata["intensity"]
    arrays = [cells.X, *cells.obsm.values(), *cells.layers.values(), objects.X, *objects.obsm.values()]
    return [np.ascontiguousarray(array).tobytes() for array in [*arrays, objects.layers["median"]]]


@pytest.fixture(scope="module")
def here(store):
    return analyse(store)


def test_results_are_those_of_this_process(client, store, here, tmp_path):
    with client.as_current():
        there = analyse(store, checkpoint=tmp_path)
    assert content(there) == content(here)
    record = there["table"].uns["nextmarker"]["embed"]
    np.testing.assert_array_equal(record["images"], here["table"].uns["nextmarker"]["embed"]["images"])
    assert progress(tmp_path)["embed"] == {"done": 2, "total": 2, "unit": "image"}


def test_an_error_of_a_task_is_raised_here_and_the_rest_is_cancelled(client):
    def fail():
        msg = "pixels are damaged"
        raise ValueError(msg)

    with client.as_current(), pytest.raises(ValueError, match="pixels are damaged"):
        list(compute_on(client, [(f"image {number}", lambda: fail) for number in range(20)]))
    assert client.submit(len, "abc", pure=False).result() == 3


def test_only_a_few_tasks_are_made_ahead(client):
    made = []

    def make():
        made.append(1)
        return str

    with client.as_current():
        results = compute_on(client, [("image", make)] * 20)
        first, _ = next(results)
        assert len(made) <= 5
        assert sorted([first, *(number for number, _ in results)]) == list(range(20))


@pytest.mark.parametrize(
    ("there", "message"), [("0.0.1", "is 0.0.1 on 1 of 2"), (ImportError(), "is missing on 1 of 2")]
)
def test_workers_without_the_same_version_are_refused(client, monkeypatch, there, message):
    monkeypatch.setattr(client, "run", lambda *_, **__: {"one": nm.__version__, "two": there})
    with client.as_current(), pytest.raises(RuntimeError, match=message):
        list(compute_on(client, [("image", lambda: str)]))


def test_the_script_for_a_cluster_runs(client, store, here, tmp_path, monkeypatch):
    """With the two processes in place of the jobs."""
    page = (Path(__file__).parents[1] / "docs" / "many_images.md").read_text()
    (script,) = re.findall(r"```python\n(# embed\.py.*?)```", page, re.DOTALL)
    (tmp_path / "embed.py").write_text(script)
    for name in ("images.zarr", "model.safetensors"):
        (tmp_path / name).symlink_to(store / name)

    class SLURMCluster:
        scheduler_address, status = client.scheduler.address, None

        def __init__(self, cores, processes, memory, walltime, queue):
            pass

        def scale(self, jobs):
            pass

    monkeypatch.setitem(sys.modules, "dask_jobqueue", SimpleNamespace(SLURMCluster=SLURMCluster))
    monkeypatch.chdir(tmp_path)
    runpy.run_path("embed.py", run_name="__main__")
    there = read_zarr(tmp_path / "embedded.zarr")
    for key, expected in here["table"].obsm.items():
        np.testing.assert_array_equal(there["table"].obsm[key], expected)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal")
def test_a_worker_that_dies_loses_nothing(client, tmp_path, monkeypatch):
    """The last test: the worker in its place needs not load all that the others need."""

    def double(folder, name, deadly, advance):
        """Note that an image was begun, and die the first time at some."""
        with (folder / "begun").open("a") as log:
            log.write(name)
        if name in deadly and (folder / "begun").read_text().count(name) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"double": np.array([2 * ord(name)])}

    names, written = "abcdefgh", []
    keep = nm._checkpoint.Checkpoint.keep
    monkeypatch.setattr(
        nm._checkpoint.Checkpoint, "keep", lambda self, key, arrays: (written.append(key), keep(self, key, arrays))
    )
    pixels = xr.DataArray(np.zeros((1, 4, 4)), dims=("c", "y", "x"), coords={"c": ["DNA"]})
    jobs = [Job(name, pixels, lambda name=name: (tmp_path, name, "c"), 1, dict) for name in names]
    arguments = {"step": "embed", "title": "doubling", "unit": "image", "progress": False}
    with client.as_current():
        found = dict(map_images(double, jobs, checkpoint=tmp_path, **arguments))
    assert [found[number]["double"].tolist() for number in range(8)] == [[2 * ord(name)] for name in names]
    begun = (tmp_path / "begun").read_text()
    assert begun.count("c") >= 2
    assert len(written) == len(set(written)) == 8
    with client.as_current():
        dict(map_images(double, jobs, checkpoint=tmp_path, **arguments))
    assert (tmp_path / "begun").read_text() == begun
