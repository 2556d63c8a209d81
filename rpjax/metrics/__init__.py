"""What a classifier's answers are worth, record by record and class by class.

`outputs`: of each record's logits. `confusion` and `binary`: of a table of true against
predicted classes. `classwise`: the same with intervals. float64 on the host.
"""

from rpjax.metrics.binary import Binary, one_vs_rest
from rpjax.metrics.classwise import (
    ClassReport,
    auc_one_vs_rest,
    bootstrapped,
    class_report,
    macro_auc,
    recalls_with_intervals,
)
from rpjax.metrics.confusion import (
    accuracy,
    balanced_accuracy,
    confusion,
    f_scores,
    g_mean,
    macro_f,
    matthews,
    predictions,
    recalls,
)
from rpjax.metrics.outputs import (
    correct,
    cross_entropy,
    expected_calibration_error,
    per_class_recall,
    softmax,
)

__all__ = [
    "Binary",
    "ClassReport",
    "accuracy",
    "auc_one_vs_rest",
    "balanced_accuracy",
    "bootstrapped",
    "class_report",
    "confusion",
    "correct",
    "cross_entropy",
    "expected_calibration_error",
    "f_scores",
    "g_mean",
    "macro_auc",
    "macro_f",
    "matthews",
    "one_vs_rest",
    "per_class_recall",
    "predictions",
    "recalls",
    "recalls_with_intervals",
    "softmax",
]
