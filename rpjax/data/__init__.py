"""Image data on the host: where records come from, each with an id that it keeps."""

from rpjax.data.records import Dataset, Records
from rpjax.data.sources import load

__all__ = ["Dataset", "Records", "load"]
