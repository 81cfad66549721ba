"""The error of a command line or a run that can't be used as it is."""


class UsageError(Exception):
    """What the user gave can't be used. The message is one sentence that names it and says how to fix it.

    It stands for Lightning's ``MisconfigurationException``, which takes seconds to import.
    """
