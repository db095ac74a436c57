"""A search: a method proposes, a reward answers; after each batch the state is on the disk, if it is wanted there."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checkpointing.atomic import atomic_write
from errors import UserError
from studies.search.methods import Method
from studies.search.rewards import Outcome, Reward
from studies.search.spaces import Choices


@dataclass
class Search:
    """One search with one seed.

    Args:
        method: by name, as in `studies.search.settings.METHODS`.
        seed: of the method.
        settings: that the method was made with.
        proposals: the architectures that were evaluated, in their order.
        outcomes: of each.
    """

    method: str
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    proposals: list[Choices] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def run(self, method: Method, reward: Reward, evaluations: int, path: Path | None = None) -> Iterator[int]:
        """Search until so many architectures are evaluated.

        Args:
            method: new, or as it was after the evaluations so far.
            reward: of the architectures.
            evaluations: in all; an architecture that is proposed twice counts twice.
            path: file for the state of the search.

        Yields:
            The number of evaluations after each batch.
        """
        while len(self.proposals) < evaluations:
            done = len(self.proposals)
            # An earlier run may have ended within a batch: its rest comes first
            count = min(method.batch_size - done % method.batch_size, evaluations - done)
            proposals = [method.propose() for _ in range(count)]
            outcomes = reward.evaluate(proposals)
            for choices, outcome in zip(proposals, outcomes, strict=True):
                method.observe(choices, outcome.validation)
            self.proposals += proposals
            self.outcomes += outcomes
            if path:
                self.save(method, path)
            yield len(self.proposals)

    def save(self, method: Method, path: Path) -> None:
        """Write the search and the state of its method."""
        content = {"method": self.method, "seed": self.seed, "proposals": self.proposals, "state": method.state_dict()}
        content |= {"outcomes": [tuple(outcome) for outcome in self.outcomes], "settings": self.settings}
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save(content, buffer)
        with atomic_write(path, "wb") as file:
            file.write(buffer.getvalue())

    def load(self, method: Method, path: Path) -> None:
        """Read what `save` has written, if anything.

        Raises:
            UserError: if the file cannot be read, or is of a search with other settings.
        """
        if not os.path.exists(path):
            return
        try:
            content = torch.load(path, weights_only=True)
            before = content["settings"]
        except Exception as error:  # torch raises what it likes for damaged files
            raise UserError(
                f"{path} is no search ({type(error).__name__}): remove it, or give another --runs."
            ) from error
        for name, value in self.settings.items():
            if before.get(name) != value:
                raise UserError(
                    f"{path} holds a search with {name} {before.get(name)}, not {value}: give another --runs, or leave "
                    f"--{name} as it was."
                )
        self.proposals = [tuple(choices) for choices in content["proposals"]]
        self.outcomes = [Outcome(*outcome) for outcome in content["outcomes"]]
        method.load_state_dict(content["state"])

    def truncated(self, evaluations: int) -> "Search":
        """The search after so many evaluations."""
        return replace(self, proposals=self.proposals[:evaluations], outcomes=self.outcomes[:evaluations])

    def rewards(self) -> np.ndarray:
        """[evaluations] validation accuracies."""
        return np.array([outcome.validation for outcome in self.outcomes])

    def best_indices(self) -> np.ndarray:
        """[evaluations] the evaluation with the best validation accuracy so far, the first of equal ones."""
        rewards = self.rewards()
        is_better = np.append(True, rewards[1:] > np.maximum.accumulate(rewards)[:-1])
        return np.maximum.accumulate(np.where(is_better, np.arange(len(rewards)), 0))

    def best_so_far(self) -> np.ndarray:
        """[evaluations, 2] validation and test accuracy of the best architecture by validation so far."""
        return np.array(self.outcomes)[self.best_indices()]

    @property
    def best(self) -> tuple[Choices, Outcome]:
        """The best architecture by validation."""
        index = int(self.best_indices()[-1])
        return self.proposals[index], self.outcomes[index]
