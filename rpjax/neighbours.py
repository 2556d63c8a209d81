"""Which proofs speak of the neighbours that an audit's coins stand for."""

SAME_NEIGHBOURS: dict[str, tuple[str, ...]] = {
    "add or remove one canary": ("add or remove one record",),
    "replace a canary by its pair, label equal": (
        "replace one record's features, labels equal",
        "replace one record by another",
    ),
}
"""By the audit's adjacency, those of a `rpjax.privacy.Guarantee`: a bound contradicts
an epsilon only where both speak of the same."""
