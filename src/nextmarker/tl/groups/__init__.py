"""Comparison of groups: what nm.tl.compare_groups is made of."""
