"""Zarr stores: written and replaced as a whole, and OME-Zarr images read."""
