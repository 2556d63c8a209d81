"""Training and asking: the one loop, evaluation, checkpoints and devices."""

from rpjax.training.budget import Budget
from rpjax.training.evaluation import Query, answers, answers_by_draw
from rpjax.training.loop import fit
from rpjax.training.pmap import pmap
from rpjax.training.progress import counter, reporter
from rpjax.training.run import Cost, Run, guarantee

__all__ = [
    "Budget",
    "Cost",
    "Query",
    "Run",
    "answers",
    "answers_by_draw",
    "counter",
    "fit",
    "guarantee",
    "pmap",
    "reporter",
]
