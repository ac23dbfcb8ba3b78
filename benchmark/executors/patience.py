"""When a run that a worker found claimed is worth another worker."""

import time
from dataclasses import dataclass

from benchmark.store import claim as claim_module
from benchmark.store.claim import Holder
from benchmark.store.run import Run

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0


@dataclass
class Patience:
    """A run that looks free to a scheduler is not always free to its workers: of another host's claim only the time of
    the last touch is seen, and clocks differ. No worker is started while such a claim is touched, or before it has been
    still for as long as a worker would watch it. Pauses between looks grow."""

    run: Run
    claim: Holder | None = None  # that stood at the last look
    changed: float = 0.0  # when it was first seen, or last seen to be touched, on the clock that nobody sets
    next_look: float = 0.0
    pause: float = 0.0

    def turned_away(self) -> None:
        """A worker has found the run claimed."""
        self._look()
        self._grow()

    def over(self) -> bool:
        """Whether a worker may be started, for what this knows."""
        if time.monotonic() < self.next_look:
            return False
        self._look()
        if self.claim is None or self.claim.can_be_looked_up:
            return True
        if time.monotonic() - self.changed >= claim_module.WATCH_SECONDS:
            return True
        self._grow()
        return False

    def _look(self) -> None:
        before, self.claim = self.claim, self.run.holder()
        if self.claim != before:
            self.changed = time.monotonic()

    def _grow(self) -> None:
        """The longest pause ends when the claim will have been still for long enough."""
        now = time.monotonic()
        self.pause = min(max(2 * self.pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        still = self.changed + claim_module.WATCH_SECONDS
        self.next_look = min(now + self.pause, still) if still > now else now + self.pause
