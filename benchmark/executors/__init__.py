"""Executors start `python -m benchmark run-job FOLDER` and nothing else; what a run is, they do not know."""

from benchmark.executors import local

EXECUTORS = {"local": local.execute}
