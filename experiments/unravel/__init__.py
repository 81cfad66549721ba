"""Residual networks taken apart: what each block, each order and each path is worth (Veit et al. 2016)."""
