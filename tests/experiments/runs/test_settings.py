"""Settings by the names that flags have."""

from experiments.runs.settings import settings


def test_classes_lists_and_the_seed():
    stop = "lightning.pytorch.callbacks.EarlyStopping"
    net = {"class_path": "lit_models.CIFARResNet", "init_args": {"depth": 8}}
    callbacks = [
        {"class_path": "callbacks.StochasticDepth", "init_args": {"survival_prob": 0.5}},
        {"class_path": stop, "init_args": {"monitor": "val/loss"}},
        {"class_path": stop, "init_args": {"monitor": "val/top1"}},
    ]
    model = {"class_path": "lit_models.ImageClassifier", "init_args": {"net": net, "milestones": [0.5, 0.75]}}
    assert settings({"seed_everything": 3, "model": model, "trainer": {"callbacks": callbacks, "logger": None}}) == {
        "seed": 3,
        "model": "lit_models.ImageClassifier",
        "model.net": "lit_models.CIFARResNet",
        "model.net.depth": 8,
        "model.milestones": "[0.5, 0.75]",
        "trainer.callbacks": "StochasticDepth, EarlyStopping, EarlyStopping",
        "trainer.callbacks.StochasticDepth.survival_prob": 0.5,
        "trainer.callbacks.1.monitor": "val/loss",
        "trainer.callbacks.2.monitor": "val/top1",
        "trainer.logger": None,
    }
    assert settings({"model": {"class_path": "A", "init_args": {}}}) == {"model": "A"}
