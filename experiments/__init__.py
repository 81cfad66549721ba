"""Recipes and results by paper, the command line, runs on disk, commands, analyses, benchmarks, notebooks."""

__version__ = "0.2.0"
