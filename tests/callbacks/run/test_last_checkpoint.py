"""When a device wishes for a checkpoint."""

from types import SimpleNamespace

from callbacks import LastCheckpoint
from callbacks.run import last_checkpoint


def test_minutes_are_minutes_and_one_wish_is_enough(monkeypatch):
    callback, clock = LastCheckpoint(every_minutes=2), iter([119.0, 121.0, 122.0, 242.0])
    monkeypatch.setattr(last_checkpoint, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert [callback._wish(SimpleNamespace(is_global_zero=True)) for _ in range(4)] == [0, 1, 0, 1]
