"""The shadow-model attack of Salem et al. (ML-Leaks, arXiv 1806.01246, adversary 1).

It is the attack of the residual-perturbation paper. A small network learns, from the
shadow models' largest posteriors, to tell their training records from others, and is
then asked about the target's. A weak attack: that it fails proves nothing.
"""

import warnings

import numpy as np
from jaxtyping import Float

from rpjax.attacks import signals
from rpjax.attacks.attack import Asked, Attack

TOP = 3
HIDDEN = 64
LEARNING_RATE = 1e-2
L2 = 1e-6
EPOCHS = 50
# the protocol's 10 means ten times as many updates; what that changes is not measured
BATCH = 100


def features(log_probs: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n top"]:
    """The three largest posteriors in descending order (two for two classes)."""
    return signals.top_posteriors(log_probs, min(TOP, log_probs.shape[1]))


def _score(
    shadows: Asked | None, target: Asked, seed: int
) -> tuple[np.ndarray | None, np.ndarray]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    assert shadows is not None
    net = MLPClassifier(
        hidden_layer_sizes=(HIDDEN,),
        activation="tanh",
        alpha=L2,
        batch_size=min(BATCH, len(shadows.labels)),
        learning_rate_init=LEARNING_RATE,
        max_iter=EPOCHS,
        random_state=seed,
    )
    known = features(shadows.log_probs)
    with warnings.catch_warnings():
        # the protocol fixes the number of epochs, converged or not
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(known, shadows.member)
    asked = features(target.log_probs)
    return net.predict_proba(known)[:, 1], net.predict_proba(asked)[:, 1]


SALEM = Attack(
    "salem", "Shadow models (Salem et al., top-3 network)", _score, needs_shadows=True
)
