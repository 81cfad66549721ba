"""What a checkpoint has to look like: the kinds of values, the state of training, and what only a network can tell."""

import copy
import time

import pytest
import torch
from torch import nn

from lit_models.checkpoint_schema import check_training, check_weights
from lit_models.checkpoints import read_checkpoint
from lit_models.schema import SchemaError, check_values
from lit_models.tasks.optimization import make_optimizer
from lit_models.tasks.restored_state import check_kinds, check_optimizer_state


def nested(levels, width):
    value = [1] * width
    for _ in range(levels):
        value = [value] * width
    return value


def itself():
    value = []
    value.append(value)
    return value


NO_VALUES = {
    "expanded": (lambda: torch.zeros(1).expand(10**13), "10000000000000 elements"),
    "expanded a little": (lambda: torch.zeros(2, 2).expand(3, 2, 2), "elements, which the file does not hold"),
    "sparse": (lambda: torch.ones(2).to_sparse(), "sparse"),
    "meta": (lambda: torch.zeros(2, device="meta"), "meta"),
    "in itself": (itself, "nested too deeply, or contains itself"),
    "deep": (lambda: nested(5000, 1), "nested too deeply"),
    "many times shared": (lambda: nested(20, 9), "nested too deeply, or contains itself"),
    "a huge number": (lambda: 2**70, "64 bits"),
    "a module": (lambda: nn.Linear(1, 1), "a Linear, where tensors and primitives belong"),
    "a function": (lambda: print, "where tensors and primitives belong"),
}


@pytest.fixture
def checkpoint(tiny_run):
    return copy.deepcopy(read_checkpoint(tiny_run / "checkpoints" / "last.ckpt"))


def test_a_whole_one_passes(checkpoint):
    check_weights(checkpoint)
    check_training(checkpoint)


@pytest.mark.parametrize("name", NO_VALUES)
def test_values_that_no_checkpoint_holds_are_named_at_once(name):
    make, word = NO_VALUES[name]
    start = time.monotonic()
    with pytest.raises(SchemaError, match=word) as error:
        check_values({"a": [make()]})
    assert time.monotonic() - start < 10
    assert str(error.value).startswith("a[0]")
    assert len(str(error.value)) < 200


def test_channels_last_and_views_are_tensors_like_others():
    check_values({"a": torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last), "b": torch.zeros(4)[1:]})


@pytest.mark.parametrize(("saved", "own"), [(torch.int64, torch.float32), (torch.float32, torch.int64)])
def test_whole_numbers_are_no_weights(saved, own):
    with pytest.raises(SchemaError, match=r"state_dict\.a is a tensor"):
        check_kinds({"a": torch.ones(1, dtype=saved)}, {"a": torch.ones(1, dtype=own)})
    check_kinds({"a": torch.ones(1, dtype=torch.float16), "other": torch.ones(1)}, {"a": torch.ones(1)})


@pytest.fixture(params=["sgd", "adamw", "lamb", "adafactor", "muon", "adafactorbv", "rmsprop"])
def optimizer(request):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
    optimizer = make_optimizer(net, request.param, 0.1, 0.1, 0.9)
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return optimizer


def test_what_an_optimizer_has_written_is_what_it_takes(optimizer):
    check_optimizer_state(optimizer)


def buffer_of_another_shape(optimizer, state):
    name = next(name for name, value in state.items() if isinstance(value, torch.Tensor) and value.ndim)
    state[name] = torch.zeros(7, 7, 7)


def a_buffer_missing(optimizer, state):
    state.pop(next(iter(state)))


def an_option_of_text(optimizer, state):
    optimizer.param_groups[0]["weight_decay"] = "text"


def an_option_missing(optimizer, state):
    del optimizer.param_groups[0]["weight_decay"]


def betas_of_text(optimizer, state):
    optimizer.param_groups[0]["betas"] = ("a", "b")


@pytest.mark.parametrize(
    "spoil", [buffer_of_another_shape, a_buffer_missing, an_option_of_text, an_option_missing, betas_of_text]
)
@pytest.mark.parametrize("optimizer", ["adamw"], indirect=True)
def test_what_it_could_not_have_written_is_refused(spoil, optimizer):
    spoil(optimizer, next(state for state in optimizer.state.values() if len(state) > 1))
    with pytest.raises(SchemaError, match="optimizer"):
        check_optimizer_state(optimizer)
