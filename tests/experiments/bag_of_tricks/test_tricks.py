"""The switches of the plan: what each turns on, and that every arm is a run."""

import pytest

from experiments.__main__ import main
from experiments.bag_of_tricks.plan import plackett_burman
from experiments.bag_of_tricks.tricks import (
    BASELINE,
    FOLDER,
    PLANS,
    RUNGS,
    TEACHER,
    TRICKS,
    UNSCALED,
    configs,
)


def test_there_are_eleven_and_all_of_them_are_the_top_of_the_ladder():
    assert len(TRICKS) == 11
    assert configs(TRICKS) == [BASELINE, *RUNGS.values()]
    assert configs([]) == [BASELINE, UNSCALED]
    assert configs(["warmup", "linear_scaling"]) == [BASELINE, FOLDER / "02_warmup.yaml"]
    assert configs(TRICKS[: TRICKS.index("distillation")]) == TEACHER[:-1]
    with pytest.raises(ValueError, match=r"no trick warmap: they are .*warmup"):
        configs(["warmap"])


def test_the_two_by_twos_differ_in_two_tricks():
    for plan, first, second in (
        (PLANS["warmup_by_batch"], "warmup", "large_batch"),
        (PLANS["distillation_by_mixup"], "distillation", "mixup"),
    ):
        base = plan["neither"]
        assert {arm: on - base for arm, on in plan.items()} == {
            "neither": set(),
            first: {first},
            second: {second},
            f"{first}+{second}": {first, second},
        }


def explained(on, capsys):
    files = [word for path in configs(on) for word in ("--config", str(path))]
    teacher = ["--model.teacher", "timm:resnet18"] if "distillation" in on else []
    data = ["--data", "datamodules.Digits", "--data.train_size", "1024"]
    assert main(["explain", *files, *teacher, *data]) == 0
    return capsys.readouterr().out


def test_arms_of_the_plan_are_runs_with_what_is_on(capsys):
    plan = plackett_burman(TRICKS)
    arms = [on for on in plan.values() if "distillation" not in on]
    for on in arms[:2]:
        text = explained(on, capsys)
        assert ("512 images a step" in text) is ("large_batch" in on)
        assert ("cosine" in text) is ("cosine" in on)
        assert ("which is 0.1 for 128 images" in text) is ("linear_scaling" in on)
