"""Errors of the library in the words of the command line."""

import pytest

from nextmarker.cli import _commands
from nextmarker.cli.messages import in_options

OPTIONS = [option.name for name in ("run", "cluster") for option in _commands.commands[name].params]


@pytest.mark.parametrize(
    ("library", "command"),
    [
        ("Choose the images that have them: images=['a', 'b'].", "Choose the images that have them: --only a,b."),
        ("n_neighbors=1 must be at least 2.", "--n-neighbors 1 must be at least 2."),
        ("Give one: patch_size=10.", "Give one: --patch-size 10."),
        ('take their counts as zero: missing="zero".', "take their counts as zero: --missing zero."),
        ("Name all: nm.io.read([...], channel_names=[...]).", "Name all: --channel-names."),
        ("training=nm.nn.TrainingConfig(steps=...).", "--steps."),
        ("Lower it: nm.nn.TrainingConfig(learning_rate=0.0001).", "Lower it: --learning-rate 0.0001."),
        ("Match them, nm.pp.match_panels(sdata, aliases=...), or", "Match them, --panel, or"),
        ("rename: sdata.set_channel_names('a', [...]).", "rename: --panel."),
        ("Name it by aliases={'CD45': \"...\"}, and", "Name it by --aliases CD45=..., and"),
        ('Write overrule={"cluster": "type"}.', "Write --overrule cluster=type."),
        ("State the encoding: panel=pandas.read_csv(path, encoding='cp1252').", "Save it as UTF-8."),
        (
            "Divide them, nm.tl.cluster(adata, restrict_to=('nextmarker', ['3'])), or use by=\"cell\".",
            "Divide them, nextmarker cluster STORE --restrict-to 3, or use --by cell.",
        ),
        (
            "Check nm.pl.thresholds(adata), or name them: overrule={'0': \"type\"}.",
            "Check --thresholds, or name them: --overrule 0=type.",
        ),
        ("nm.tl.cluster(adata, restrict_to=('a', ['2,3']))", "nextmarker cluster STORE --restrict-to '\"2,3\"'"),
        ("Choose others: markers=['HLA-DR', 'Ki 67'].", "Choose others: --markers 'HLA-DR,Ki 67'."),
        ("differ? See nm.metrics.batch_mixing(adata, 'image').", "differ? See the report."),
        ("device=None cannot be used", "--device cannot be used"),
        ("Check the centres, nm.pl.cells(sdata), or", "Check the centres, the figure cells.png, or"),
        ("Correct the sheet, or join by another: on=...", "Correct the sheet, or join by another: --on"),
        (
            "Choose other channels, nuclear_channels=[...], or nm.pp.add_cells(...).",
            "Choose other channels: --nuclear-channels.",
        ),
        (
            "No cluster '7' in .obs['nextmarker']; there is '0'. Choose another: restrict_to=(column, clusters).",
            "No cluster '7'; there is '0'. Choose another: --restrict-to.",
        ),
        ("or is damaged. Save it again: model.save(path).", "or is damaged. nextmarker train makes one."),
        ("cells=[...] and nm.pp.add_cells(sdata, ...)", "cells=[...] and nm.pp.add_cells(sdata, ...)"),
    ],
)
def test_arguments_become_options(library: str, command: str) -> None:
    assert in_options(library, OPTIONS) == command
