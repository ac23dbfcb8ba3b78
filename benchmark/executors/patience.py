"""When a run that a worker found claimed is worth another worker."""

import time
from dataclasses import dataclass

from benchmark.store import run as run_module
from benchmark.store.run import Holder, Run

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0


@dataclass
class Patience:
    """A run that looks free to a scheduler is not always free to its workers: of another host's claim only the time of
    the last touch is seen, and clocks differ. After a worker that was turned away none is started while that claim is
    touched, or before it has been still for as long as a worker would watch it. Pauses between looks grow."""

    run: Run
    claim: Holder | None = None  # that the last worker met
    changed: float = 0.0  # when that was last seen to be touched, on the clock that nobody sets
    next_look: float = 0.0
    pause: float = 0.0  # none before a worker was turned away

    def turned_away(self) -> None:
        """A worker has found the run claimed."""
        self.claim, self.changed = self.run.holder(), time.monotonic()
        self._grow()

    def over(self) -> bool:
        """Whether a worker may be started, for what this knows."""
        if time.monotonic() < self.next_look:
            return False
        if not self._is_still_held():
            return True
        self._grow()
        return False

    def _is_still_held(self) -> bool:
        before, self.claim, now = self.claim, self.run.holder(), time.monotonic()
        if before is None or self.claim is None or self.claim.is_here or self.claim.claim != before.claim:
            return False  # nobody's, another's, or one whose process can be looked up
        if self.claim.touched != before.touched:
            self.changed = now
        return now - self.changed < run_module.WATCH_SECONDS

    def _grow(self) -> None:
        self.pause = min(max(2 * self.pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        self.next_look = time.monotonic() + self.pause
