"""From run folders to tables: published cells, statistics, verdicts, six texts. Imports store and data; no torch."""
