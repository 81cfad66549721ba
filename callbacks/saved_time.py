"""How much time was saved by doing less than all of the work, as far as it can be told from the steps themselves."""

from __future__ import annotations


class SavedTime:
    """The seconds per unit of work, by least squares over the steps so far, times the work that was left out.

    Steps that draw different amounts of work take different times, and the slope of the line through them is what
    a whole step's work costs. The points are means of ``group`` steps, since on a GPU a single step returns before
    it is done.
    """

    def __init__(self, group: int = 16, minimum: int = 8) -> None:
        self.group = group
        self.minimum = minimum
        self.sums = dict.fromkeys(("points", "work", "seconds", "work²", "work·seconds"), 0.0)
        self._steps, self._work, self._seconds = 0, 0.0, 0.0

    def add(self, work: float, seconds: float) -> None:
        """Note a step: the share of the work it did, in [0, 1], and its time."""
        self._steps, self._work, self._seconds = self._steps + 1, self._work + work, self._seconds + seconds
        if self._steps < self.group:
            return
        work, seconds = self._work / self.group, self._seconds / self.group
        self._steps, self._work, self._seconds = 0, 0.0, 0.0
        for name, value in zip(self.sums, (1, work, seconds, work**2, work * seconds), strict=True):
            self.sums[name] += value

    def seconds(self) -> float | None:
        """Seconds saved so far; ``None`` while there are too few points, or all steps do the same work."""
        points, work, seconds, squares, products = self.sums.values()
        variance = squares * points - work**2
        if points < self.minimum or variance < 1e-9 * points**2:
            return None
        slope = (products * points - work * seconds) / variance
        return slope * (points - work) * self.group
