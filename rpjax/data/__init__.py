"""Image data: where records come from, who trains on them, how batches are drawn."""

from rpjax.data.augmentation import Augmentation
from rpjax.data.imbalance import Imbalance, imbalanced
from rpjax.data.membership import Design, design
from rpjax.data.records import Dataset, Records
from rpjax.data.sampling import Sampler, poisson, shuffled
from rpjax.data.sources import load
from rpjax.data.stored import StoredRecords

__all__ = [
    "Augmentation",
    "Dataset",
    "Design",
    "Imbalance",
    "Records",
    "Sampler",
    "StoredRecords",
    "design",
    "imbalanced",
    "load",
    "poisson",
    "shuffled",
]
