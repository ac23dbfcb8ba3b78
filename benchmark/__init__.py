"""Does ICASC reproduce? A grid becomes jobs, a job a run folder, run folders become tables."""

__version__ = "0.2.0"
