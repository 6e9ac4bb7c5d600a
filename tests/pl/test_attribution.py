import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps

import nextmarker as nm
from nextmarker.pl import marker_attribution


def dots(ax):
    (collection,) = ax.collections
    return collection


def wide(sdata, column):
    return sdata["table"].uns["marker_attribution"].pivot(index="cluster", columns="marker", values=column)


def test_one_dot_per_cluster_and_marker(sdata):
    ax = marker_attribution(sdata)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["DNA", "CD3", "HLA-DR/DP", "Ki 67"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1", "2"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("marker", "nextmarker")
    expected = [(m + 0.5, c + 0.5) for c in range(3) for m in range(4)]
    np.testing.assert_allclose(dots(ax).get_offsets(), expected)


def test_size_is_the_fraction(sdata):
    sizes = dots(marker_attribution(sdata)).get_sizes()
    fraction = wide(sdata, "fraction").to_numpy().ravel()
    np.testing.assert_allclose(sizes / 150, fraction**1.5)


def test_the_key_says_above_what_cells_were_counted(sdata):
    assert marker_attribution(sdata).get_legend().get_title().get_text() == "cells above the median (%)"
    nm.tl.marker_attribution(sdata, threshold={"CD3": 2.0})
    assert marker_attribution(sdata).get_legend().get_title().get_text() == "cells above the threshold (%)"
    del sdata["table"].uns["nextmarker"]
    assert marker_attribution(sdata).get_legend().get_title().get_text() == "cells above the threshold (%)"


def test_color_is_the_activation_scaled_per_marker(sdata):
    drawn = dots(marker_attribution(sdata))
    mean = wide(sdata, "mean").to_numpy()
    scaled = (mean - mean.min(0)) / (mean.max(0) - mean.min(0))
    np.testing.assert_allclose(drawn.get_facecolors(), colormaps["Reds"](scaled.ravel()))


def test_color_is_the_activation(sdata):
    drawn = dots(marker_attribution(sdata, standard_scale=False))
    mean = wide(sdata, "mean").to_numpy()
    np.testing.assert_allclose(drawn.get_facecolors(), colormaps["Reds"](mean.ravel() / mean.max()))


def test_contributions_are_centred_on_zero(sdata):
    drawn = dots(marker_attribution(sdata, method="contribution"))
    contribution = wide(sdata, "contribution").to_numpy()
    place = contribution.ravel() / np.abs(contribution).max() / 2 + 0.5
    np.testing.assert_allclose(drawn.get_facecolors(), colormaps["RdBu_r"](place), atol=0.01)


def test_bars_are_the_cluster_sizes(sdata):
    figure = marker_attribution(sdata).figure
    widths = [bar.get_width() for ax in figure.axes for bar in ax.patches]
    assert widths == [20, 15, 5]


def test_draws_into_given_axes(sdata):
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    assert marker_attribution(sdata, ax=ax).figure is figure


def test_any_grouping(sdata):
    sdata["table"].obs["image"] = sdata["table"].obs["image"].astype("category")
    nm.tl.marker_attribution(sdata, groupby="image", key_added="by_image")
    ax = marker_attribution(sdata, key="by_image")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["left", "right"]
    assert ax.get_ylabel() == "image"


def test_single_cluster(sdata):
    sdata["table"].obs["nextmarker"] = "all"
    sdata["table"].obs["nextmarker"] = sdata["table"].obs["nextmarker"].astype("category")
    nm.tl.marker_attribution(sdata)
    for method in ("activation", "contribution"):
        assert len(dots(marker_attribution(sdata, method=method)).get_offsets()) == 4


def test_errors(sdata):
    with pytest.raises(ValueError, match="'activation', 'contribution'"):
        marker_attribution(sdata, method="gradient")
    del sdata["table"].uns["marker_attribution"]
    with pytest.raises(KeyError, match="nm.tl.marker_attribution"):
        marker_attribution(sdata)


def test_clusters_made_again_are_not_drawn(sdata):
    sdata["table"].obs["nextmarker"] = pd.Categorical(["0"] * 40)
    with pytest.raises(ValueError, match=r"other clusters.*nm.tl.marker_attribution"):
        nm.pl.marker_attribution(sdata)


def test_renamed_clusters_are_drawn_by_their_new_names(sdata):
    before = dots(marker_attribution(sdata)).get_facecolors()
    adata = sdata["table"]
    adata.obs["nextmarker"] = adata.obs["nextmarker"].cat.rename_categories({"0": "T", "1": "B", "2": "other"})
    ax = marker_attribution(sdata)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["T", "B", "other"]
    np.testing.assert_allclose(dots(ax).get_facecolors(), before)


def test_an_attribution_of_another_embedding_is_not_drawn(sdata):
    adata = sdata["table"]
    for number in range(2):
        adata.obs["nextmarker_embedding"] = pd.Categorical([f"{'a' * 16}-0000000{number}"] * 40)
        if number == 0:
            adata.obs["group"] = adata.obs["nextmarker"]
            nm.tl.marker_attribution(adata, groupby="group")
            marker_attribution(sdata)
    with pytest.raises(ValueError, match=r"another embedding.*nm.tl.marker_attribution\(adata, groupby='group'\)"):
        marker_attribution(sdata)


def test_chosen_markers(sdata):
    ax = marker_attribution(sdata, markers=["Ki 67", "CD3"])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["Ki 67", "CD3"]
    mean = wide(sdata, "mean")[["Ki 67", "CD3"]].to_numpy()
    scaled = (mean - mean.min(0)) / (mean.max(0) - mean.min(0))
    np.testing.assert_allclose(dots(ax).get_facecolors(), colormaps["Reds"](scaled.ravel()))
    with pytest.raises(KeyError, match="'CD4' in the attribution.*markers="):
        marker_attribution(sdata, markers=["CD4"])
    with pytest.raises(ValueError, match="each once"):
        marker_attribution(sdata, markers=[])


def test_dendrogram(sdata):
    """Clusters 0 and 2 are made alike."""
    table = sdata["table"].uns["marker_attribution"]
    table["mean"] = table["mean"].where(table["cluster"] != "2", table["marker"].map(wide(sdata, "mean").loc["0"]))
    table.loc[(table["cluster"] == "2") & (table["marker"] == "DNA"), "mean"] += 0.1
    ax = marker_attribution(sdata, dendrogram=True)
    order = [label.get_text() for label in ax.get_yticklabels()]
    assert abs(order.index("0") - order.index("2")) == 1
    np.testing.assert_allclose(dots(ax).get_sizes() / 150, wide(sdata, "fraction").loc[order].to_numpy().ravel() ** 1.5)
    sizes = {"0": 20, "1": 15, "2": 5}
    assert [bar.get_width() for other in ax.figure.axes for bar in other.patches] == [sizes[name] for name in order]
    (tree,) = [other for other in ax.figure.axes if len(other.lines) == 2]
    assert sorted(tree.lines[0].get_ydata()[[0, -1]]) == sorted(order.index(name) + 0.5 for name in "02")


def test_axes_of_any_kind(sdata):
    for ax in (plt.figure().add_axes((0.1, 0.5, 0.4, 0.4)), plt.figure().subplot_mosaic("AB")["B"]):
        place = ax.get_position()
        drawn = marker_attribution(sdata, ax=ax).get_position()
        assert drawn.x0 >= place.x0 - 1e-6
        assert drawn.y1 <= place.y1 + 1e-6
