"""What a run left on disk, and who may write there: folders, records, scores, metrics. Imports matrix."""
