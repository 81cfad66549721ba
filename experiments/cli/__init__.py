"""The command line: fit, validate, test and predict, and how settings, names and errors are treated."""

TRAINER_COMMANDS = {
    "fit": "train a network, with validation",
    "validate": "evaluate a checkpoint on the validation images",
    "test": "evaluate a checkpoint, merged or not, on the test images",
    "predict": "write the classes a checkpoint sees in the test images, or with RUN --images in files",
}
"""What one LightningCLI does, and what for."""
