"""What somebody writes who follows the recipes of CONTRIBUTING in a service that has the skeleton and nothing else."""

from tests.architecture.recipes.closing import COMMAND, EVENT, POLICY, QUESTION, VIEW
from tests.architecture.recipes.reacting import NOTICE, SAGA, TIMER, WAITING
from tests.architecture.recipes.reading import DERIVED, LIST, WATCH
from tests.architecture.recipes.writing import BULK, EXPORT, FILES, FOUR_EYES, VERSION

RECIPES = (
    *(VERSION, BULK, DERIVED, WATCH, LIST, TIMER, FOUR_EYES, FILES, EXPORT, SAGA, NOTICE, WAITING),
    *(EVENT, COMMAND, VIEW, QUESTION, POLICY),
)
"""In this order: each is followed in what the ones before left."""
