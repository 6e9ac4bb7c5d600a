"""Zarr stores: checks, writes and replaces them, and reads OME-Zarr images."""
