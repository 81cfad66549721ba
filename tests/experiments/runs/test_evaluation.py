"""What an evaluation shows beyond its means, by hand."""

import torch

from experiments.runs.evaluation import Evaluation


def test_rows_of_the_matrix_are_the_true_classes():
    evaluation = Evaluation(3, torch.device("cpu"))
    evaluation.update(torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 2]), torch.eye(3)[[1, 1, 2]])
    assert ["a", "b", 1] in evaluation.confusion("abc")
    assert evaluation.by_class("abc") == [["a", 1, 0.0], ["b", 1, 1.0], ["c", 1, 1.0]]
