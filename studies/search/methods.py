"""What a search method is, and the two that have no controller: random search and regularised evolution."""

from abc import ABC, abstractmethod
from collections import deque
from typing import Any

import torch

from errors import check_at_least
from studies.search.spaces import Choices, Space

State = dict[str, Any]  # tensors and plain types, for `torch.load` with `weights_only`


class Method(ABC):
    """Proposes architectures, and learns from their rewards.

    Proposals are drawn `batch_size` at a time, before the rewards of the first of them are known; they can be evaluated
    at the same time, and are observed in the order in which they were proposed. So a search does not depend on the
    number of processes, nor on where it was interrupted.

    Args:
        space: of the architectures.
        seed: of all random draws.
        batch_size: number of proposals that are drawn at a time.
    """

    def __init__(self, space: Space, seed: int, batch_size: int) -> None:
        check_at_least(1, batch_size=batch_size)
        self.space, self.batch_size = space, batch_size
        self.generator = torch.Generator().manual_seed(seed)
        self.queue: deque[Choices] = deque()

    def propose(self) -> Choices:
        """The next architecture to evaluate."""
        if not self.queue:
            self.queue.extend(self.draw_batch())
        return self.queue.popleft()

    @abstractmethod
    def draw_batch(self) -> list[Choices]:
        """The next `batch_size` proposals."""

    @abstractmethod
    def observe(self, choices: Choices, reward: float) -> None:
        """Learn the reward of a proposal, in [0, 1]."""

    def state_dict(self) -> State:
        """All that later proposals depend on."""
        return {"generator": self.generator.get_state(), "queue": list(self.queue)}

    def load_state_dict(self, state: State) -> None:
        """Go on where `state_dict` was called."""
        self.generator.set_state(state["generator"])
        self.queue = deque(tuple(choices) for choices in state["queue"])

    def draw_below(self, size: int) -> int:
        """A random index."""
        return int(torch.randint(size, (), generator=self.generator))

    def draw_architecture(self) -> Choices:
        """An architecture of which each decision is drawn uniformly."""
        return tuple(self.draw_below(decision.size) for decision in self.space.decisions)


class RandomSearch(Method):
    """Every proposal is drawn uniformly, with replacement, and nothing is learned.

    Args:
        space, seed, batch_size: see `Method`.
    """

    def __init__(self, space: Space, seed: int, batch_size: int = 1) -> None:
        super().__init__(space, seed, batch_size)

    def draw_batch(self) -> list[Choices]:
        return [self.draw_architecture() for _ in range(self.batch_size)]

    def observe(self, choices: Choices, reward: float) -> None:
        """Nothing to learn."""


class Evolution(Method):
    """Regularised evolution: Real et al., arXiv 1802.01548, Algorithm 1.

    The first proposals are random. Each later one is a mutation of the best of a few members of the population that are
    drawn at random, and takes the place of the oldest member, however good that is. A mutation changes one decision.

    Args:
        space, seed, batch_size: see `Method`.
        population_size: P in the paper.
        sample_size: S in the paper, members that are drawn, with replacement, for each proposal.
    """

    def __init__(
        self, space: Space, seed: int, batch_size: int = 1, population_size: int = 50, sample_size: int = 5
    ) -> None:
        super().__init__(space, seed, batch_size)
        check_at_least(1, population_size=population_size, sample_size=sample_size)
        self.population_size, self.sample_size = population_size, sample_size
        self.population: deque[tuple[Choices, float]] = deque(maxlen=population_size)  # the oldest first

    def draw_batch(self) -> list[Choices]:
        missing = self.population_size - len(self.population)
        return [
            self.draw_architecture() if number < missing else self.mutate(self.select())
            for number in range(self.batch_size)
        ]

    def select(self) -> Choices:
        """The best of the members that are drawn."""
        drawn = [self.population[self.draw_below(len(self.population))] for _ in range(self.sample_size)]
        return max(drawn, key=lambda member: member[1])[0]

    def mutate(self, choices: Choices) -> Choices:
        """The architecture with another choice in one of the decisions that have one."""
        open_decisions = [i for i, decision in enumerate(self.space.decisions) if decision.size > 1]
        index = open_decisions[self.draw_below(len(open_decisions))]
        other = self.draw_below(self.space.decisions[index].size - 1)
        mutated = list(choices)
        mutated[index] = other + (other >= choices[index])  # all but the present one
        return tuple(mutated)

    def observe(self, choices: Choices, reward: float) -> None:
        """Add a member; the oldest one dies where there is no room."""
        self.population.append((choices, reward))

    def state_dict(self) -> State:
        return super().state_dict() | {"population": list(self.population)}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.population.clear()
        self.population.extend((tuple(choices), reward) for choices, reward in state["population"])
