"""What a run is on disk: directory, lock, configuration, metrics, Weights & Biases, resumption."""
