"""Errors about what the user gave, each with one sentence that says how to fix it.

They are ``ValueError``s of this package, so that a network needs torch alone.
"""


class NetworkError(ValueError):
    """Arguments that no network can be built from, or images or an analysis that it cannot take."""


class CheckpointError(ValueError):
    """A file that is not a checkpoint of this project, or not of this network. The message names the file."""
