import pytest

from experiments.runs.metric_names import metric_name


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("val/top1", "validation top-1"),
        ("train/loss", "training loss"),
        ("test/ap/cat", "test AP of cat"),
        ("val/pixel_accuracy", "validation pixel accuracy"),
        ("stochastic_depth/survival_prob", "stochastic depth survival prob"),
        ("lr", "learning rate"),
        ("activation_lambda", "λ"),
        ("miou", "mIoU"),
    ],
)
def test_a_column_as_people_say_it(column: str, said: str) -> None:
    assert metric_name(column) == said
