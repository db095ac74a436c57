"""Controller, policy gradients, evolution and random search, on spaces small enough to compute by hand."""

import itertools
import math

import pytest
import torch

from errors import UserError
from studies.search.controller import Controller, as_tensor
from studies.search.methods import Evolution, RandomSearch
from studies.search.policy_gradient import PPO, Reinforce
from studies.search.settings import METHODS, choose_settings, make_method
from studies.search.spaces import NASBench201Space, NASNetSpace
from tests.studies.search.toy import ToySpace

SMALL = {"population_size": 4, "sample_size": 2, "batch_size": 3, "hidden_size": 8}


def controller(space, seed=0):
    return Controller(space, 8, torch.Generator().manual_seed(seed)).double()


def test_the_log_probability_equals_a_plain_recomputation():
    """nn.LSTM over all decisions at once, each softmax picked by hand."""
    space = ToySpace(3, 2, 3)
    net = controller(space)
    rnn = torch.nn.LSTM(8, 8).double()
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(rnn, f"{name}_l0").data = getattr(net.lstm, name).data
    for choices in itertools.product(range(3), range(2), range(3)):
        inputs = [net.start, net.embeddings[0].weight[choices[0]], net.embeddings[1].weight[choices[1]]]
        hidden = rnn(torch.stack(inputs)[:, None])[0][:, 0]
        heads = (net.heads[0], net.heads[1], net.heads[0])  # the first and the third decision are of one kind
        softmaxes = [head(h).softmax(0) for head, h in zip(heads, hidden, strict=True)]
        expected = sum(math.log(p[choice].item()) for p, choice in zip(softmaxes, choices, strict=True))
        entropy = -sum((p * p.log()).sum() for p in softmaxes)
        log_prob, entropies = net(as_tensor([choices]))
        assert log_prob.item() == pytest.approx(expected)
        assert entropies.item() == pytest.approx(entropy.item())


def test_the_probabilities_of_all_architectures_sum_to_one():
    space = ToySpace(3, 2, 3)
    everything = as_tensor(list(itertools.product(range(3), range(2), range(3))))
    assert controller(space)(everything)[0].exp().sum().item() == pytest.approx(1)


def test_architectures_are_drawn_as_often_as_the_controller_says():
    space = ToySpace(2, 3)
    net = controller(space, seed=3)
    for head in net.heads:
        head.bias.data.mul_(20)  # far from uniform
    drawn = net.sample(20_000, torch.Generator().manual_seed(0))
    for choices in itertools.product(range(2), range(3)):
        share = (drawn == torch.tensor(choices)).all(dim=1).double().mean().item()
        assert share == pytest.approx(net(as_tensor([choices]))[0].exp().item(), abs=0.012)


@pytest.mark.parametrize(("space", "kinds"), [(NASBench201Space(), 1), (NASNetSpace(), 6)])
def test_each_kind_of_decision_has_one_softmax(space, kinds):
    """Of NASNet's space: the operations, and the hidden states of each of five rows."""
    net = Controller(space, 8, torch.Generator())
    assert len(net.heads) == len(net.embeddings) == kinds
    drawn = net.sample(50, torch.Generator().manual_seed(0)).tolist()
    assert all(space.check(choices) for choices in drawn)


def gradient(method, architectures, rewards):
    """Of the objective, for the bias of the only softmax, at the first step."""
    method.optimizer = torch.optim.SGD(method.controller.parameters(), lr=0.0)
    method.update(architectures, rewards)
    return -method.controller.heads[0].bias.grad


def by_hand(method, architectures, rewards, baseline):
    """d/d logits of mean((r - b) log p) + w H, for one decision: (r - b) (onehot - p), and -p (log p + H)."""
    with torch.no_grad():
        net = method.controller
        p = net.heads[0](net.lstm(net.start[None])[0])[0].softmax(0)
    total = torch.zeros_like(p)
    for (choice,), reward in zip(architectures, rewards, strict=True):
        onehot = torch.zeros_like(p)
        onehot[choice] = 1
        total += (reward - baseline) * (onehot - p) / len(rewards)
    entropy = -(p * p.log()).sum()
    return total - method.entropy_weight * p * (p.log() + entropy)


@pytest.mark.parametrize("kind", [Reinforce, PPO])
def test_the_gradient_is_that_computed_by_hand(kind):
    """PPO's first step is REINFORCE's: its ratio is 1."""
    method = kind(ToySpace(3), 0, batch_size=2, entropy_weight=0.3, baseline_decay=0.8, hidden_size=8)
    first = gradient(method, [(0,), (2,)], [0.9, 0.4])
    # Before the first batch its own mean is the baseline, and so the moving average begins there
    torch.testing.assert_close(first, by_hand(method, [(0,), (2,)], [0.9, 0.4], baseline=0.65))
    assert method.baseline == pytest.approx(0.65)
    second = gradient(method, [(1,), (1,)], [0.2, 0.3])
    torch.testing.assert_close(second, by_hand(method, [(1,), (1,)], [0.2, 0.3], baseline=0.65))
    assert method.baseline == pytest.approx(0.8 * 0.65 + 0.2 * 0.25)


def test_ppo_gains_nothing_beyond_its_clip():
    """Equation 7: the ratio counts up to 1 + epsilon where the advantage is positive, down to 1 - epsilon elsewhere."""
    method = PPO(ToySpace(3), 0, clip=0.2)
    ratios = torch.tensor([1.0, 1.5, 0.5, 1.5, 0.5, 1.1])
    advantages = torch.tensor([2.0, 2.0, 2.0, -2.0, -2.0, -2.0])
    log_probs = ratios.log().requires_grad_()
    objective = method.objective(log_probs, torch.zeros(6), advantages)
    objective.backward()
    values = [2.0, 2 * 1.2, 2 * 0.5, -2 * 1.5, -2 * 0.8, -2 * 1.1]
    assert objective.item() == pytest.approx(sum(values) / 6)
    # d ratio / d log p is the ratio; none where the clip holds
    expected = torch.tensor([2.0, 0.0, 2 * 0.5, -2 * 1.5, 0.0, -2 * 1.1]) / 6
    torch.testing.assert_close(log_probs.grad, expected)


@pytest.mark.parametrize("kind", [Reinforce, PPO])
def test_a_controller_learns_what_is_rewarded(kind):
    method = kind(ToySpace(4, 4, 4), 0, batch_size=5, learning_rate=0.03, entropy_weight=0.0, hidden_size=16)
    for _ in range(200 if kind is Reinforce else 100):
        choices = method.propose()
        method.observe(choices, sum(choice == 1 for choice in choices) / 3)
    assert sum(method.propose() == (1, 1, 1) for _ in range(20)) > 10


def test_the_controller_changes_with_the_last_reward_of_a_batch():
    method = Reinforce(ToySpace(3), 0, batch_size=3, hidden_size=8)
    before = method.controller.heads[0].bias.clone()
    for number in range(3):
        assert torch.equal(method.controller.heads[0].bias, before) and len(method.observed) == number
        method.observe(method.propose(), 0.1 * number)
    assert not torch.equal(method.controller.heads[0].bias, before) and not method.observed


def test_evolution_lets_the_oldest_die_however_good_it_is():
    method = Evolution(ToySpace(9, 9), 0, population_size=3, sample_size=9)
    method.observe((1, 1), 1.0)
    for number in (2, 3):
        method.observe((number, number), 0.0)
    assert [member[0] for member in method.population] == [(1, 1), (2, 2), (3, 3)]
    assert method.select() == (1, 1)
    method.observe((4, 4), 0.0)
    assert [member[0] for member in method.population] == [(2, 2), (3, 3), (4, 4)]
    assert method.select() != (1, 1)


def test_evolution_begins_at_random_and_then_mutates_the_best_of_a_sample():
    space = ToySpace(9, 9, 9)
    method, twin = Evolution(space, 5, population_size=4, sample_size=20), RandomSearch(space, 5)
    for number in range(4):
        choices = method.propose()
        assert choices == twin.propose()
        method.observe(choices, 0.5 if number == 2 else 0.1)
    best = method.population[2][0]
    for _ in range(30):
        assert sum(a != b for a, b in zip(method.mutate(best), best, strict=True)) == 1
        assert sum(a != b for a, b in zip(method.propose(), best, strict=True)) == 1


def test_a_mutation_changes_only_decisions_that_have_another_choice_and_reaches_all():
    method = Evolution(ToySpace(1, 3), 0)
    assert {method.mutate((0, 1)) for _ in range(50)} == {(0, 0), (0, 2)}


def test_random_search_is_uniform():
    method = RandomSearch(ToySpace(2, 3), 0)
    drawn = [method.propose() for _ in range(6_000)]
    for choices in itertools.product(range(2), range(3)):
        assert drawn.count(choices) / 6_000 == pytest.approx(1 / 6, abs=0.02)


@pytest.mark.parametrize("name", METHODS)
def test_a_restored_method_goes_on_to_the_bit(name, tmp_path):
    space, settings = ToySpace(4, 3, 4), choose_settings(name, SMALL)

    def step(method):
        choices = method.propose()
        method.observe(choices, sum(choices) / 8)
        return choices

    straight = make_method(name, space, 1, settings)
    proposed = [step(straight) for _ in range(20)]
    first = make_method(name, space, 1, settings)
    assert [step(first) for _ in range(8)] == proposed[:8]  # in the middle of a batch
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = make_method(name, space, 99, settings)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [step(second) for _ in range(12)] == proposed[8:]
    assert torch.equal(second.generator.get_state(), straight.generator.get_state())


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("reinforce", {"learning_rate": 0.0}, "learning_rate is 0.0: it must be above 0"),
        ("reinforce", {"baseline_decay": 1.0}, r"baseline_decay is 1.0: it must be in \[0, 1\)"),
        ("reinforce", {"entropy_weight": -0.1}, "entropy_weight is -0.1: it must be at least 0"),
        ("reinforce", {"hidden_size": 0}, "hidden_size is 0: it must be at least 1"),
        ("ppo", {"clip": 1.5}, "clip is 1.5"),
        ("ppo", {"steps": 0}, "steps is 0: it must be at least 1"),
        ("random", {"batch_size": 0}, "batch_size is 0: it must be at least 1"),
        ("evolution", {"population_size": 0}, "population_size is 0: it must be at least 1"),
        ("evolution", {"sample_size": 0}, "sample_size is 0: it must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(name, settings, says):
    with pytest.raises(UserError, match=says):
        make_method(name, ToySpace(3), 0, choose_settings(name, settings))
