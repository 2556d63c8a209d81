"""Small trainings, and two that are done; PYTEST_DONT_REWRITE."""

import optax
import pytest
from support import Dense

from rpjax.learners import Inputs, dpsgd, supervised
from rpjax.perturbations import Additive
from rpjax.training import fit

TX = optax.sgd(0.2, momentum=0.9)
PLAIN = supervised(Dense(Additive(0.5)), TX)
HIDDEN = supervised(Dense(Additive(0.5)), TX, Inputs(noise=0.3))
PRIVATE = dpsgd(Dense(), TX, clip_norm=0.5, noise_multiplier=1.0, batch_size=4)


@pytest.fixture(scope="session")
def run(small):
    """Two and a half epochs of four steps."""
    return fit(HIDDEN, small, batch_size=4, steps=10, seed=3, noise_seed="fixed")


@pytest.fixture(scope="session")
def private_run(small):
    return fit(PRIVATE, small, batch_size=4, steps=40, seed=3, noise_seed="fixed")
