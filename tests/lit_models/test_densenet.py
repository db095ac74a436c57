from itertools import pairwise

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lit_models import LitDenseNet
from lit_models.nets.densenet import DenseNet
from lit_models.nets.surgery import swap_activation, swap_dropout, swap_norm

PLAIN = {"bottleneck": False, "compression": 1.0}
# depth, classes, size, other arguments, parameters, multiply-adds in G
COUNTS = [
    (121, 1000, 224, {}, 7_978_856, 2.8342),
    (169, 1000, 224, {}, 14_149_480, 3.3598),
    (201, 1000, 224, {}, 20_013_928, 4.2914),
    (264, 1000, 224, {}, 33_337_704, 5.7517),
    (161, 1000, 224, {}, 28_681_000, 7.7279),
    (40, 10, 32, PLAIN, 1_019_722, 0.2648),
    (100, 10, 32, PLAIN, 6_979_642, 1.7695),
    (100, 10, 32, PLAIN | {"growth_rate": 24}, 27_249_082, 6.8893),
    (100, 10, 32, {}, 769_162, 0.2879),
    (250, 10, 32, {"growth_rate": 24}, 15_324_406, 5.4188),
    (190, 10, 32, {"growth_rate": 40}, 25_624_430, 9.3019),
    (40, 10, 32, {"growth_rate": 36}, 1_542_682, 0.6473),
    (40, 10, 32, {"growth_rate": 48}, 2_733_130, 1.1499),
]
# A BC net of the CIFAR kind with two layers in each block, and a plain one
BC = {"depth": 16, "growth_rate": 8}
SMALL = [BC, {"depth": 10, "growth_rate": 8} | PLAIN]


def step(net, images, seed=3):
    """Loss, gradients and buffers of a training step."""
    torch.manual_seed(seed)
    net.zero_grad()
    loss = cross_entropy(net(images), torch.arange(len(images)))
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in net.parameters()), *(b.clone() for b in net.buffers())]


def peak_memory(net, images):
    """The most bytes that are allocated at once in a training step."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        net(images).square().sum().backward()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = torch.tensor([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).cumsum(0)
    return held.max().item()


@pytest.mark.parametrize(("depth", "classes", "size", "arguments", "parameters", "multiply_adds"), COUNTS)
def test_counts_are_those_of_the_paper(depth, classes, size, arguments, parameters, multiply_adds):
    with torch.device("meta"):
        net, images = DenseNet(classes, depth, **arguments).eval(), torch.empty(1, 3, size, size)
    assert sum(p.numel() for p in net.parameters()) == parameters
    with FlopCounterMode(display=False) as counter:
        net(images)
    assert counter.get_total_flops() / 2 == pytest.approx(multiply_adds * 1e9, rel=1e-3)


@pytest.mark.parametrize("depth", [121, 169, 201, 161, 264])
def test_torchvisions_weights_give_torchvisions_logits(depth):
    if depth == 264:
        theirs = torchvision.models.DenseNet(32, (6, 12, 64, 48), 64)
    else:
        theirs = getattr(torchvision.models, f"densenet{depth}")()
    for name, buffer in theirs.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    ours = DenseNet(1000, depth).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs.eval()(images), rtol=0, atol=1e-5)


def test_blocks_halve_the_image_and_transitions_the_channels():
    with torch.device("meta"):
        net, shapes = DenseNet(1000, 121), {}
        for name, module in net.features.named_children():
            module.register_forward_hook(lambda *call, name=name: shapes.update({name: tuple(call[-1].shape[1:])}))
        net(torch.empty(1, 3, 224, 224))
    assert shapes["pool0"] == (64, 56, 56) and shapes["denseblock4"] == (1024, 7, 7)
    assert [shapes[f"denseblock{i}"] for i in (1, 2, 3)] == [(256, 56, 56), (512, 28, 28), (1024, 14, 14)]
    assert [shapes[f"transition{i}"] for i in (1, 2, 3)] == [(128, 28, 28), (256, 14, 14), (512, 7, 7)]


@pytest.mark.parametrize(
    ("arguments", "channels"), [({}, 24), (PLAIN, 16), ({"bottleneck": False}, 16), ({"compression": 1.0}, 16)]
)
def test_the_first_convolution_on_cifar(arguments, channels):
    with torch.device("meta"):
        net = DenseNet(10, 40, **arguments)
    assert net.features.conv0.out_channels == channels
    assert next(iter(net.features.named_children()))[0] == "conv0" and not hasattr(net.features, "norm0")


def test_each_layer_sees_all_maps_before_it():
    net = DenseNet(**BC, num_classes=10).eval()
    block, x, seen = net.features.denseblock1, torch.randn(1, 16, 4, 4), []
    for layer in block.children():
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    out = block(x)
    assert [maps.shape[1] for maps in seen] == [16, 24] and out.shape[1] == 32
    assert torch.equal(seen[0], x) and torch.equal(seen[1], out[:, :24])


@pytest.mark.parametrize("arguments", SMALL)
def test_dropout_follows_every_convolution_but_the_first(arguments):
    net = DenseNet(**arguments, num_classes=10, dropout=0.2)
    layers = [layer for layer in net.features.modules() if not list(layer.children())]
    after = [type(b) for a, b in pairwise(layers) if isinstance(a, nn.Conv2d)]
    assert after[0] is not nn.Dropout and set(after[1:]) == {nn.Dropout}
    assert len(after) == arguments["depth"] - 1  # L counts the classifier too
    assert {layer.p for layer in layers if isinstance(layer, nn.Dropout)} == {0.2}


@pytest.mark.parametrize("memory_efficient", [False, True])
@pytest.mark.parametrize(("arguments", "size"), [*((small, size) for small in SMALL for size in (4, 32)), (None, 29)])
def test_every_parameter_gets_a_gradient(arguments, size, memory_efficient):
    net = DenseNet(**(arguments or {"depth": 121}), num_classes=7, dropout=0.1, memory_efficient=memory_efficient)
    logits = net(torch.randn(2, 3, size, size))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("arguments", SMALL)
def test_recomputing_changes_nothing(arguments, dropout):
    nets = []
    for memory_efficient in (False, True):
        torch.manual_seed(0)
        nets.append(DenseNet(**arguments, num_classes=10, dropout=dropout, memory_efficient=memory_efficient))
    images = torch.randn(4, 3, 16, 16)
    for seed in (1, 2):  # running statistics, too, after two steps
        kept, recomputed = (step(net, images, seed) for net in nets)
        assert all(map(torch.equal, kept, recomputed))
    batches = [b for name, b in nets[1].named_buffers() if name.endswith("num_batches_tracked")]
    assert set(map(int, batches)) == {2}
    assert torch.equal(*(net.eval()(images) for net in nets))


def test_recomputing_leaves_frozen_and_cumulative_statistics_alone():
    images, nets = torch.randn(4, 3, 16, 16), []
    for memory_efficient in (False, True):
        torch.manual_seed(0)
        nets.append(DenseNet(**BC, num_classes=10, memory_efficient=memory_efficient))
        nets[-1].features.denseblock1.denselayer1.norm1.momentum = None  # the mean over all batches
        nets[-1].features.denseblock1.denselayer2.norm1.eval()
    for seed in (1, 2):
        assert all(map(torch.equal, *(step(net, images, seed) for net in nets)))
    assert nets[1].features.denseblock1.denselayer1.norm1.momentum is None
    assert int(nets[1].features.denseblock1.denselayer2.norm1.num_batches_tracked) == 0


def test_recomputing_in_bfloat16_and_channels_last():
    images = torch.randn(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    results = []
    for memory_efficient in (False, True):
        torch.manual_seed(0)
        net = DenseNet(**BC, num_classes=10, dropout=0.2, memory_efficient=memory_efficient)
        with torch.autocast("cpu", torch.bfloat16):
            results.append(step(net.to(memory_format=torch.channels_last), images))
    assert all(map(torch.equal, *results))


@pytest.mark.slow
def test_compiled_recomputing_counts_a_batch_once():
    torch._dynamo.reset()
    images, nets = torch.randn(4, 3, 16, 16), []
    for memory_efficient in (False, True):
        torch.manual_seed(0)
        nets.append(DenseNet(**BC, num_classes=10, memory_efficient=memory_efficient))
    nets[1].compile(backend="aot_eager", fullgraph=True)
    for plain, compiled in zip(*(step(net, images) for net in nets), strict=True):
        torch.testing.assert_close(compiled, plain)


def test_recomputing_saves_memory():
    images = torch.randn(4, 3, 32, 32)
    kept, recomputed = (peak_memory(DenseNet(10, 40, memory_efficient=on), images) for on in (False, True))
    assert kept > 2.5 * recomputed


@pytest.mark.slow
def test_recomputing_takes_a_third_of_the_memory_of_densenet121():
    images = torch.randn(16, 3, 224, 224)
    kept, recomputed = (peak_memory(DenseNet(1000, 121, memory_efficient=on), images) for on in (False, True))
    print(f"peak of a step: {kept / 2**20:.0f} MiB, recomputed {recomputed / 2**20:.0f} MiB")
    assert kept > 3 * recomputed


def test_evaluation_repeats_and_the_state_dict_too():
    net, other = (DenseNet(**BC, num_classes=10, dropout=0.5).eval() for _ in range(2))
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(net(images), net(images)) and not torch.equal(net(images), other(images))
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(images), other(images))


def test_he_initialisation_over_the_fan_out():
    net = DenseNet(10, 121)
    layer = net.features.denseblock4.denselayer16
    assert layer.conv1.weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.02)
    assert layer.conv2.weight.std().item() == pytest.approx((2 / (9 * 32)) ** 0.5, rel=0.02)
    assert net.classifier.bias.abs().sum() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 122}, r"depth 122 is no DenseNet: .*121, 169, 201, 264, 161 .* 6n \+ 4, .* with bottleneck"),
        ({"depth": 43}, r"6n \+ 4"),  # fits without bottleneck only
        ({"depth": 41, "bottleneck": False}, r"depth 41 .* 3n \+ 4, .* without bottleneck"),
        ({"depth": 4}, "depth 4 is no DenseNet"),
        ({"depth": -8}, "depth -8 is no DenseNet"),
        ({"depth": 121, "bottleneck": False}, "bottleneck is false, but depth 121"),
        ({"depth": 40, "growth_rate": 0}, "growth_rate is 0"),
        ({"depth": 40, "compression": 0.0}, "compression is 0.0"),
        ({"depth": 40, "compression": 1.5}, "compression is 1.5"),
        ({"depth": 40, "dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_impossible_nets_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DenseNet(num_classes=10, **arguments)


@pytest.mark.parametrize(
    ("arguments", "smallest"), [({"depth": 121}, 29), *((small, 4) for small in SMALL)], ids=["121", "bc", "plain"]
)
def test_sizes(arguments, smallest):
    model = LitDenseNet(10, **arguments, optimizer=torch.optim.SGD)
    for mode in (True, False):
        model.train(mode)
        assert model(torch.rand(2, 3, smallest, smallest)).shape == (2, 10)
        with pytest.raises(ValueError, match=f"{smallest - 1} px .* at least {smallest} px"):
            model(torch.rand(2, 3, smallest - 1, smallest - 1))
    with pytest.raises(RuntimeError):  # it is the net that cannot
        model.net(torch.rand(2, 3, smallest - 1, smallest - 1))


def test_arguments_reach_the_net():
    model = LitDenseNet(
        10, 22, 6, compression=0.25, dropout=0.2, memory_efficient=True, norm="group", optimizer=torch.optim.SGD
    )
    features = model.net.features
    assert features.denseblock1.memory_efficient and features.denseblock1.denselayer3.drop1.p == 0.2
    assert features.transition1.conv.weight.shape == (7, 30, 1, 1) and isinstance(features.norm5, nn.GroupNorm)


@pytest.mark.parametrize("arguments", SMALL)
@pytest.mark.parametrize("norm", ["group", "none"])
def test_norms_can_be_swapped(arguments, norm):
    results = []
    for memory_efficient in (False, True):
        torch.manual_seed(0)
        net = DenseNet(**arguments, num_classes=10, memory_efficient=memory_efficient)
        swap_norm(net, norm)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
        results.append(step(net, torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8)))
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "selu"])
def test_activations_can_be_swapped(activation):
    net, images = DenseNet(**BC, num_classes=10, dropout=0.2), torch.rand(2, 3, 8, 8)
    before = net.eval()(images)
    swap_activation(net, activation)
    kind = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "selu": nn.SELU}[activation]
    found = [module for module in net.modules() if isinstance(module, nn.ReLU | nn.LeakyReLU | nn.SELU)]
    assert {type(module) for module in found} == {kind} and len(found) == 2 * 6 + 2 + 1
    assert torch.equal(net(images), before) == (activation == "relu")
    dropouts = [module for module in net.modules() if isinstance(module, nn.Dropout | nn.AlphaDropout)]
    assert {type(module) for module in dropouts} == {nn.AlphaDropout if activation == "selu" else nn.Dropout}


def test_dropout_can_be_set():
    net = DenseNet(**BC, num_classes=10)
    swap_dropout(net, 0.4)
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.4] * (2 * 6 + 2)
