"""The controller trained by reinforcement: REINFORCE with a moving-average baseline, and PPO.

Zoph and Le, arXiv 1611.01578, section 3.2 (REINFORCE); Zoph et al., arXiv 1707.07012, appendix A.1 (PPO, entropy
bonus), with the clipped objective of Schulman et al., arXiv 1707.06347, equation 7.
"""

from abc import abstractmethod

import torch
from torch import Tensor

from errors import UserError, check_at_least, check_probability
from studies.search.controller import Controller, as_tensor
from studies.search.methods import Method, State
from studies.search.spaces import Choices, Space


class PolicyGradient(Method):
    """A controller that is updated after each batch of rewards.

    The advantage of an architecture is its reward minus a moving average of the mean rewards of earlier batches.

    Args:
        space, seed, batch_size: see `Method`.
        learning_rate: of Adam.
        entropy_weight: weight of the mean entropy of the architectures, which is added to the objective; rewards are
            accuracies in [0, 1].
        baseline_decay: of the moving average, in [0, 1); before the first batch, its own mean is the average.
        hidden_size: of the controller.
        steps: gradient steps on each batch.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        batch_size: int,
        learning_rate: float,
        entropy_weight: float,
        baseline_decay: float,
        hidden_size: int,
        steps: int,
    ) -> None:
        super().__init__(space, seed, batch_size)
        check_at_least(0, entropy_weight=entropy_weight)
        check_at_least(1, steps=steps)
        check_probability(baseline_decay=baseline_decay)
        if not 0 < learning_rate < float("inf"):
            raise UserError(f"learning_rate is {learning_rate}: it must be above 0.")
        self.entropy_weight, self.baseline_decay, self.steps = entropy_weight, baseline_decay, steps
        self.controller = Controller(space, hidden_size, self.generator)
        self.optimizer = torch.optim.Adam(self.controller.parameters(), lr=learning_rate)
        self.baseline: float | None = None
        self.observed: list[tuple[Choices, float]] = []  # since the last update

    def draw_batch(self) -> list[Choices]:
        drawn = self.controller.sample(self.batch_size, self.generator).tolist()
        return [tuple(choices) for choices in drawn]

    def observe(self, choices: Choices, reward: float) -> None:
        """Remember a reward; with the last one of a batch, update the controller."""
        self.observed.append((choices, reward))
        if len(self.observed) == self.batch_size:
            self.update([choices for choices, _ in self.observed], [reward for _, reward in self.observed])
            self.observed = []

    def update(self, architectures: list[Choices], rewards: list[float]) -> None:
        """The gradient steps on a batch."""
        mean = sum(rewards) / len(rewards)
        baseline = mean if self.baseline is None else self.baseline
        choices, advantages = as_tensor(architectures), torch.tensor(rewards) - baseline
        with torch.no_grad():
            before = self.controller(choices)[0]
        for _ in range(self.steps):
            log_probs, entropies = self.controller(choices)
            objective = self.objective(log_probs, before, advantages) + self.entropy_weight * entropies.mean()
            self.optimizer.zero_grad()
            (-objective).backward()
            self.optimizer.step()
        self.baseline = self.baseline_decay * baseline + (1 - self.baseline_decay) * mean

    @abstractmethod
    def objective(self, log_probs: Tensor, before: Tensor, advantages: Tensor) -> Tensor:
        """What is maximised, without the entropy: a scalar.

        Args:
            log_probs: [B] of the architectures, with a gradient.
            before: [B] the same before the first gradient step on this batch.
            advantages: [B].
        """

    def state_dict(self) -> State:
        return super().state_dict() | {
            "controller": self.controller.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "baseline": self.baseline,
            "observed": self.observed,
        }

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.controller.load_state_dict(state["controller"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.baseline = state["baseline"]
        self.observed = [(tuple(choices), reward) for choices, reward in state["observed"]]


class Reinforce(PolicyGradient):
    """REINFORCE: one step along the gradient of the log-probabilities, each weighted by its advantage.

    Args:
        space, seed, batch_size, learning_rate, entropy_weight, baseline_decay, hidden_size: see `PolicyGradient`.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        batch_size: int = 5,
        learning_rate: float = 0.003,
        entropy_weight: float = 0.01,
        baseline_decay: float = 0.9,
        hidden_size: int = 64,
    ) -> None:
        super().__init__(space, seed, batch_size, learning_rate, entropy_weight, baseline_decay, hidden_size, steps=1)

    def objective(self, log_probs: Tensor, before: Tensor, advantages: Tensor) -> Tensor:
        return (log_probs * advantages).mean()


class PPO(PolicyGradient):
    """Proximal policy optimisation: several steps, none of which gains by moving a probability by more than the clip.

    Args:
        space, seed, batch_size, learning_rate, entropy_weight, baseline_decay, hidden_size, steps: see
            `PolicyGradient`.
        clip: epsilon in the paper: largest relative change of an architecture's probability that counts.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        batch_size: int = 5,
        learning_rate: float = 0.003,
        entropy_weight: float = 0.003,
        baseline_decay: float = 0.9,
        hidden_size: int = 64,
        steps: int = 4,
        clip: float = 0.2,
    ) -> None:
        super().__init__(space, seed, batch_size, learning_rate, entropy_weight, baseline_decay, hidden_size, steps)
        check_probability(clip=clip)
        self.clip = clip

    def objective(self, log_probs: Tensor, before: Tensor, advantages: Tensor) -> Tensor:
        ratio = (log_probs - before).exp()
        return torch.minimum(ratio * advantages, ratio.clamp(1 - self.clip, 1 + self.clip) * advantages).mean()
