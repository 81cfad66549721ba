"""Runs that are killed in the middle of a test's own process."""

import signal
import warnings

import pytest
from drill import SMALL, command, finished_run

from experiments.__main__ import main
from lit_models import ImageClassifier


class KilledError(Exception):
    """Ends a run in an instant, as far as that goes in one process: nothing is saved for it."""


class Event:
    """Calls ``act`` in the n-th training or validation step from now."""

    def __init__(self):
        self.count, self.at, self.act = 0, None, None

    def __call__(self):
        self.count += 1
        if self.count == self.at:
            self.act()


def kill():
    raise KilledError


@pytest.fixture
def die():
    """A hook that ends the run in an instant."""

    def die(*_):
        raise KilledError

    return die


@pytest.fixture
def event(monkeypatch):
    event = Event()
    for step in ("training_step", "validation_step"):
        original = getattr(ImageClassifier, step)

        def noted(module, batch, batch_idx, original=original):
            event()
            return original(module, batch, batch_idx)

        monkeypatch.setattr(ImageClassifier, step, noted)
    return event


@pytest.fixture
def ordinary_signals():
    """Where the tests run in the background, some are ignored."""
    handlers = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL, "SIGTERM": signal.SIG_DFL}
    before = {name: signal.signal(getattr(signal, name), handler) for name, handler in handlers.items()}
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


@pytest.fixture
def fit(event, ordinary_signals, capsys):
    """Runs what starts or resumes the run in a folder; ``act`` happens in step ``at``. Exit code, and what it says."""

    def run(folder, *more, at=None, act=kill, flags=SMALL):
        event.count, event.at, event.act = 0, at, act
        args = command(folder, flags)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                code = main([*args, *more])
        except KilledError:
            code = -9
        except SystemExit as error:
            code = error.code
        return code, "".join(capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The run directory of a run without a break."""
    folder = tmp_path_factory.mktemp("whole")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(command(folder, SMALL)) == 0
    return finished_run(folder)
