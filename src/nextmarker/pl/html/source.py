"""What a report is about, and the names of the results it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nextmarker import _keys
from nextmarker._record import results_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

    from nextmarker._regions import Region


@dataclass(frozen=True)
class Source:
    """The object, and the choices of the user."""

    sdata: SpatialData
    adata: AnnData
    regions: Sequence[Region]
    groupby: str
    channels: Sequence[str]
    table_key: str

    @property
    def attribution(self) -> str:
        """Name of the attribution of these clusters."""
        return self._named(_keys.ATTRIBUTION, _keys.ATTRIBUTION)

    @property
    def annotation(self) -> str:
        """Name of the annotation of these clusters."""
        return self._named(_keys.ANNOTATE_STEP, _keys.CELL_TYPE)

    def _named(self, step: str, default: str) -> str:
        """Find by its record what a step computed from these clusters; empty if only from others."""
        records = self.adata.uns.get(_keys.RECORD, {})
        known = [name for name in records if f"{name}_".startswith(f"{step}_")]
        ours = [name for name in known if records[name].get("groupby") == self.groupby]
        if step in ours or step not in known and not ours:  # without a record, it may still be theirs
            return default
        return ours[-1].removeprefix(f"{step}_") if ours else ""

    def results(self, step: str, slot: str = "uns") -> list[str]:
        """Names of all results of a step that the table still has."""
        return [name for name in results_of(self.adata, step) if name in getattr(self.adata, slot)]

    @property
    def colored(self) -> pd.Series | None:
        """The column that cells are coloured by: cell types if there are any, or else clusters."""
        typed = f"{self.annotation}_annotation" in self.adata.uns and self.annotation in self.adata.obs
        column = self.annotation if typed else self.groupby
        return self.adata.obs[column].astype("category") if column in self.adata.obs else None
