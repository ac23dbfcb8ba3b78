"""How many images the batches of a job have, known without torch."""

from benchmark.matrix import study
from benchmark.matrix.job import Job


def smallest_batch(job: Job, num_images: int) -> int:
    """How many images the smallest batch of an epoch has, or a rank's share of it.

    Args:
        num_images: Of the training split.
    """
    whole = min(num_images, job.limit_train or num_images)
    count = round(study.method(job.method).train_share * whole)  # as train/batches.py, training_subset
    last = count % job.batch_size or min(count, job.batch_size)
    return max(1, last // job.ranks)
