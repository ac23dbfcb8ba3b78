"""The version of the suite, for the face of the package and for the record of a run, far below it."""

VERSION = "0.2.0"
