import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lit_models import LitShakeShake
from lit_models.nets.shake_shake import Block, Shake, ShakeShake, Shortcut
from lit_models.nets.surgery import swap_activation, swap_dropout, swap_norm

PARAMETERS = {32: 2_923_162, 64: 11_653_978, 96: 26_192_922, 112: 35_640_442}
MULTIPLY_ADDS = {32: 0.4267e9, 64: 1.6855e9, 96: 3.7769e9, 112: 5.1348e9}
# Table 1's rows: forward, backward, level
ROWS = [
    ("even", "even", "batch"),
    *(
        (forward, backward, level)
        for level in ("batch", "image")
        for forward, backward in (("even", "shake"), ("shake", "keep"), ("shake", "even"), ("shake", "shake"))
    ),
]


@pytest.mark.parametrize("w", [8, 16])
def test_counts_of_the_narrow_nets_by_hand(w):
    """Not in the paper: two branches of two convolutions with BatchNorm in each of 12 blocks, and three shortcuts."""
    stages = [(16, w), (w, 2 * w), (2 * w, 4 * w)]
    expected = 3 * 16 * 9 + 2 * 16 + 4 * w * 10 + 10  # first convolution with BatchNorm, and classifier
    for inputs, width in stages:
        expected += 2 * (9 * inputs * width + 7 * 9 * width * width + 8 * 2 * width)
        if inputs != width:
            expected += inputs * width + 2 * width
    with torch.device("meta"):
        assert sum(p.numel() for p in ShakeShake(10, w, Shake("shake", "shake", "image")).parameters()) == expected


@pytest.fixture
def net():
    torch.manual_seed(0)
    return ShakeShake(10, 32, Shake("shake", "shake", "image"))


@pytest.mark.parametrize("width", PARAMETERS)
def test_counts_are_those_of_the_paper(width):
    with torch.device("meta"):
        net, images = ShakeShake(10, width, Shake("shake", "shake", "image")).eval(), torch.empty(1, 3, 32, 32)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[width]
    with FlopCounterMode(display=False) as counter:
        net(images)
    assert counter.get_total_flops() / 2 == pytest.approx(MULTIPLY_ADDS[width], rel=1e-3)


def test_every_stage_has_four_blocks_and_only_its_first_changes_the_shape(net):
    shapes = []
    for stage in (net.layer1, net.layer2, net.layer3):
        stage.register_forward_hook(lambda *call: shapes.append(tuple(call[-1].shape)))
        assert [type(block.downsample) for block in stage] == [Shortcut, *[type(None)] * 3]
    net(torch.rand(2, 3, 32, 32))
    assert shapes == [(2, 32, 32, 32), (2, 64, 16, 16), (2, 128, 8, 8)]


def weights_of(forward, backward, level, images=6):
    """The first branch's weights in the forward and the backward pass, per image; and that the second has the rest."""
    shake = Shake(forward, backward, level)
    first, second = (torch.full((images, 3, 2, 2), value, requires_grad=True) for value in (1.0, 0.0))
    out = shake(first, second)
    out.sum().backward()
    torch.testing.assert_close(first.grad + second.grad, torch.ones(images, 3, 2, 2))
    alpha, beta = out.detach().flatten(1), first.grad.flatten(1)
    assert (alpha == alpha[:, :1]).all() and (beta == beta[:, :1]).all()  # one for each image
    return alpha[:, 0], beta[:, 0]


@pytest.mark.parametrize(("forward", "backward", "level"), ROWS)
def test_the_output_uses_alpha_and_the_gradient_beta(forward, backward, level):
    torch.manual_seed(1)
    alpha, beta = weights_of(forward, backward, level)
    for mode, weight in ((forward, alpha), (backward, beta)):
        if mode == "even":
            assert (weight == 0.5).all()
        elif level == "batch":
            assert (weight == weight[0]).all() and weight[0] != 0.5
        else:
            assert len(weight.unique()) == len(weight)
    if forward == "shake":
        assert torch.equal(alpha, beta) == (backward == "keep")


def test_keep_after_an_even_forward_pass_is_even():
    assert all((weight == 0.5).all() for weight in weights_of("even", "keep", "image"))


def test_weights_are_uniform_and_independent():
    torch.manual_seed(0)
    alpha, beta = weights_of("shake", "shake", "image", images=4000)
    for weight in (alpha, beta):
        assert 0 <= weight.min() < 0.01 and 0.99 < weight.max() <= 1
        assert weight.mean().item() == pytest.approx(1 / 2, abs=0.02)
        assert weight.var().item() == pytest.approx(1 / 12, abs=0.005)
    assert abs(torch.corrcoef(torch.stack([alpha, beta]))[0, 1]) < 0.05


def test_two_branches_are_mixed_between_different_values():
    shake = Shake("shake", "keep", "image")
    first, second = torch.randn(2, 5, 3, 4, 4)
    torch.manual_seed(7)
    out = shake(first, second)
    torch.manual_seed(7)
    alpha = torch.rand(5, 1, 1, 1)
    torch.testing.assert_close(out, alpha * first + (1 - alpha) * second)


def test_every_block_draws_for_itself(net):
    drawn = []
    for block in net.modules():
        if isinstance(block, Block):
            for branch, value in ((block.branch1, 1.0), (block.branch2, 0.0)):  # so that the mix is alpha
                nn.init.zeros_(branch[-1].weight)
                nn.init.constant_(branch[-1].bias, value)
    net.layer1[0].shake.register_forward_hook(lambda *call: drawn.append(call[-1][:, 0, 0, 0].detach()))
    net(torch.rand(2, 3, 8, 8))
    assert len(drawn) == 12 and len(torch.cat(drawn).unique()) == 24


def test_a_seed_repeats_a_step(net):
    images = torch.rand(4, 3, 8, 8)

    def step(seed):
        torch.manual_seed(seed)
        net.zero_grad()
        net(images).square().sum().backward()
        return [p.grad.clone() for p in net.parameters()]

    first, second, other = step(1), step(1), step(2)
    assert all(map(torch.equal, first, second))
    assert not all(map(torch.equal, first, other))


def test_evaluation_is_even_and_repeats(net):
    net.eval()
    block, x = net.layer1[1], torch.randn(2, 32, 8, 8)
    before = x.clone()
    out = block(x)
    activated = x.relu()
    # No ReLU after the addition, and the skip connection takes x as it was
    torch.testing.assert_close(out, before + 0.5 * block.branch1(activated) + 0.5 * block.branch2(activated))
    assert out.min() < 0 and torch.equal(x, before)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(net(images), net(images))


def test_the_stem_ends_without_relu(net):
    seen = []
    net.layer1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net(torch.randn(2, 3, 8, 8))
    assert seen[0].min() < 0


def test_the_shortcuts_second_path_sees_the_image_shifted_to_the_right_and_downwards():
    shortcut = Shortcut(1, 2, stride=2).eval()  # BN does nothing but divide by sqrt(1 + eps)
    nn.init.ones_(shortcut.conv1.weight)
    nn.init.ones_(shortcut.conv2.weight)
    image = torch.arange(16.0).reshape(1, 1, 4, 4) + 1
    first, second = shortcut(image)[0]
    torch.testing.assert_close(first, torch.tensor([[1.0, 3.0], [9.0, 11.0]]), atol=1e-3, rtol=0)
    torch.testing.assert_close(second, torch.tensor([[0.0, 0.0], [0.0, 6.0]]), atol=1e-3, rtol=0)


def test_the_first_stage_has_a_shortcut_of_stride_one(net):
    shortcut = net.layer1[0].downsample
    assert shortcut.stride == 1 and shortcut.conv1.weight.shape == shortcut.conv2.weight.shape == (16, 16, 1, 1)
    assert [stage[0].downsample.stride for stage in (net.layer2, net.layer3)] == [2, 2]


@pytest.mark.parametrize("size", [1, 32])
@pytest.mark.parametrize(("forward", "backward", "level"), [ROWS[0], ROWS[2], ROWS[-1]])
def test_every_parameter_gets_a_gradient(forward, backward, level, size):
    net = ShakeShake(7, 32, Shake(forward, backward, level))
    logits = net(torch.randn(3, 3, size, size))
    assert logits.shape == (3, 7)
    logits.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_bfloat16_and_channels_last(net):
    net = net.to(memory_format=torch.channels_last)
    images = torch.randn(3, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    dtypes = []
    net.layer1[0].shake.register_forward_hook(lambda *call: dtypes.append(call[-1].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        net(images).float().square().sum().backward()
    assert set(dtypes) == {torch.bfloat16}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    net.eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        low = net(images).float()
    torch.testing.assert_close(low, net(images).detach(), atol=0.1, rtol=0.1)


def test_compiled_it_mixes_as_before():
    torch._dynamo.reset()
    shake = Shake("shake", "shake", "image")
    first, second = torch.randn(2, 4, 3, 2, 2)
    first, second = (t.requires_grad_() for t in (first, second))

    def run():
        torch.manual_seed(3)
        out = shake(first, second)
        return out, *torch.autograd.grad(out.square().sum(), (first, second))

    plain = run()
    shake.compile(backend="eager", fullgraph=True)
    for compiled, expected in zip(run(), plain, strict=True):
        torch.testing.assert_close(compiled, expected)


def test_state_dict_round_trip(net):
    other = ShakeShake(10, 32, Shake("shake", "shake", "image"))
    images = torch.rand(2, 3, 16, 16)
    assert not torch.equal(other.eval()(images), net.eval()(images))
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(images), net(images))


def test_he_initialisation_over_the_fan_out(net):
    assert net.layer3[1].branch1[0].weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert net.layer2[0].branch2[0].weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.03)
    assert net.fc.bias.abs().sum() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 33}, "width 33 is no Shake-Shake net: choose one of 32, 64, 96, 112, 8, 16"),
        ({"forward": "keep"}, "forward keep is no way to mix branches: choose one of shake, even"),
        ({"backward": "none"}, "backward none is no way to mix branches: choose one of shake, keep, even"),
        ({"level": "pixel"}, "level pixel is no way to mix branches: choose one of image, batch"),
    ],
)
def test_impossible_nets_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LitShakeShake(10, optimizer=torch.optim.SGD, **arguments)


def test_sizes():
    model = LitShakeShake(10, optimizer=torch.optim.SGD)
    assert model(torch.rand(2, 3, 1, 1)).shape == (2, 10)
    with pytest.raises(ValueError, match="0 px"):
        model.input_size.check(0, training=True)


def test_arguments_reach_the_net():
    with torch.device("meta"):
        model = LitShakeShake(10, 64, "even", "keep", "batch", optimizer=torch.optim.SGD)
    shake = model.net.layer1[0].shake
    assert (shake.forward_mode, shake.backward_mode, shake.level) == ("even", "keep", "batch")
    assert model.net.layer1[0].branch1[0].out_channels == 64


@pytest.mark.parametrize("norm", ["group", "none"])
def test_norms_can_be_swapped(net, norm):
    swap_norm(net, norm)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    net(torch.rand(2, 3, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("activation", ["leaky_relu", "selu"])
def test_activations_can_be_swapped(net, activation):
    swap_activation(net, activation)
    assert not any(isinstance(module, nn.ReLU) for module in net.modules())
    net(torch.rand(2, 3, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_relu_swapped_for_relu_is_the_same_net(net):
    images = torch.rand(2, 3, 8, 8)
    before = net.eval()(images)
    swap_activation(net, "relu")
    torch.testing.assert_close(net(images), before)


def test_dropout_goes_before_the_classifier(net):
    swap_dropout(net, 0.5)
    outputs = net.eval()(torch.rand(1, 3, 8, 8))
    assert outputs.shape == (1, 10)
    features = torch.ones(1000, 128)
    dropped = []
    net.fc.register_forward_pre_hook(lambda _, inputs: dropped.append((inputs[0] == 0).float().mean().item()))
    net.train().fc(features)
    net.eval().fc(features)
    assert dropped == [pytest.approx(0.5, abs=0.01), 0.0]
