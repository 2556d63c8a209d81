"""Recipes: trainings that a paper or a search found good, by name.

`rpjax train --recipe NAME` takes a recipe's settings as its defaults, and options
beside it come on top. Each module is a page: where its settings are from, which of them
were published and which derived, and what is known of the accuracy.
"""

from rpjax.errors import InputError
from rpjax.experiments.config import ExperimentConfig
from rpjax.experiments.recipes import de2022, kurakin2022, mnist, tan2023
from rpjax.experiments.recipes.recipe import Facts, Recipe
from rpjax.experiments.values import overlaid

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *de2022.RECIPES,
        *tan2023.RECIPES,
        *kurakin2022.RECIPES,
        *mnist.RECIPES,
    )
}


def named(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        InputError: there is none.
    """
    if name not in RECIPES:
        raise InputError(f"recipe is {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]


def followed(recipe: Recipe, base: ExperimentConfig) -> ExperimentConfig:
    """`base` with the recipe's settings."""
    config: ExperimentConfig = overlaid(base, recipe.settings, recipe.name)
    return config


__all__ = ["RECIPES", "Facts", "Recipe", "followed", "named"]
