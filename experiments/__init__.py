"""Recipes and results by paper, the command line, runs on disk, commands, analyses, benchmarks, notebooks."""
