"""Positions of cells from other sources, one file per kind of source."""
