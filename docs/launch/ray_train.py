"""Ray Train: `JaxTrainer` starts the workers and joins them; rpjax joins nobody twice.

Start with `python docs/launch/ray_train.py` where Ray's cluster can be reached.
"""

import sys
from pathlib import Path


def train(config):
    """What every worker does: one command, started anew or gone on with."""
    from rpjax.cli import main

    words = ["--data", config["data"], "--method", config["method"]]
    status = main(
        ["train", *words, *config["options"], "--out", config["out"], "--resume"]
    )
    if status:
        # Ray starts the workers again, as often as FailureConfig says
        raise RuntimeError(f"rpjax ended with status {status}")


CONFIG = {
    "data": "cifar10",
    "method": "strategy1",
    "options": ["--data-dir", "/shared/data", "--size", "full"],
    "out": "/shared/out",
}


def launch():
    """Four workers with a GPU each."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.jax import JaxTrainer

    trainer = JaxTrainer(
        train_loop_per_worker=train,
        train_loop_config=CONFIG,
        scaling_config=ScalingConfig(
            num_workers=4, use_gpu=True, resources_per_worker={"GPU": 1, "CPU": 8}
        ),
        run_config=RunConfig(
            name="rpjax",
            storage_path=str(Path(CONFIG["out"]).parent / "ray"),
            failure_config=FailureConfig(max_failures=20),
        ),
    )
    return trainer.fit()


if __name__ == "__main__":
    sys.exit(0 if launch().error is None else 1)
