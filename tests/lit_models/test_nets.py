import pytest
import timm
import torch
import torchvision
from torch import nn

from lit_models.nets.layers import num_groups
from lit_models.nets.resnet import PadShortcut, ResNet
from lit_models.nets.surgery import swap_norm

IMAGENET_A = {18: 11_515_688, 34: 21_623_848, 50: 22_780_456, 101: 41_772_584, 152: 57_416_232}
IMAGENET_B = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
IMAGENET_C = {18: 12_043_816, 34: 22_716_840, 50: 40_128_552, 101: 76_981_288, 152: 107_335_720}
CIFAR_A = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962, 1202: 19_421_274}
CIFAR_B = {20: 272_474, 32: 466_906, 44: 661_338, 56: 855_770, 110: 1_730_714}

COUNTS = [
    *((depth, 1000, "A", count) for depth, count in IMAGENET_A.items()),
    *((depth, 1000, "B", count) for depth, count in IMAGENET_B.items()),
    *((depth, 1000, "C", count) for depth, count in IMAGENET_C.items()),
    *((depth, 10, "A", count) for depth, count in CIFAR_A.items()),
    *((depth, 10, "B", count) for depth, count in CIFAR_B.items()),
    (18, 1000, "none", 11_515_688),
    (34, 1000, "none", 21_623_848),
    (18, 1000, None, 11_689_512),  # what the paper reports: B on ImageNet
    (20, 10, None, 269_722),  # and A on CIFAR
]


@pytest.mark.parametrize(("depth", "classes", "shortcut", "count"), COUNTS)
def test_parameters_are_those_of_the_paper(depth, classes, shortcut, count):
    with torch.device("meta"):
        net = ResNet(classes, depth, shortcut=shortcut)
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_torchvisions_weights_give_torchvisions_logits(depth):
    theirs, ours = getattr(torchvision.models, f"resnet{depth}")().eval(), ResNet(1000, depth).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=0)


def test_group_norm_is_that_of_the_published_resnet50_gn():
    theirs, ours = timm.create_model("resnet50_gn").eval(), ResNet(1000, 50).eval()
    swap_norm(ours, "group")
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=0)


@pytest.mark.parametrize(("depth", "count"), [(18, 11_173_962), (50, 23_520_842)])
def test_a_cifar_stem_keeps_the_keys_and_the_pixels(depth, count):
    theirs, ours = ResNet(10, depth), ResNet(10, depth, stem="cifar")
    assert sum(p.numel() for p in ours.parameters()) == count
    assert (ours.conv1.kernel_size, ours.conv1.stride) == ((3, 3), (1, 1))
    assert isinstance(ours.maxpool, nn.Identity)
    shapes = [{name: value.shape for name, value in net.state_dict().items()} for net in (theirs, ours)]
    assert shapes[0].keys() == shapes[1].keys()
    assert [name for name in shapes[0] if shapes[0][name] != shapes[1][name]] == ["conv1.weight"]
    assert ours.layer1(ours.maxpool(ours.conv1(torch.randn(1, 3, 32, 32)))).shape[2:] == (32, 32)


@pytest.mark.parametrize(("channels", "expected"), [(16, 4), (32, 8), (48, 12), (64, 32), (256, 32), (80, 20), (2, 1)])
def test_num_groups(channels, expected):
    assert num_groups(channels) == expected
    assert channels % num_groups(channels) == 0


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize(
    ("depth", "shortcut"), [(20, "A"), (20, "none"), (18, "B"), (18, "C"), (50, "B"), (50, "none"), (50, "A")]
)
def test_every_parameter_gets_a_gradient(depth, shortcut, norm):
    net = ResNet(7, depth, shortcut=shortcut)
    swap_norm(net, norm)
    logits = net(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_option_a_takes_every_second_pixel_and_pads_both_sides():
    images = torch.randn(2, 16, 8, 8)
    out = PadShortcut(16, 32, stride=2)(images)
    assert out.shape == (2, 32, 4, 4)
    assert torch.equal(out[:, 8:24], images[:, :, ::2, ::2])
    assert out[:, :8].abs().sum() == 0 and out[:, 24:].abs().sum() == 0


def test_a_plain_net_adds_nothing():
    net = ResNet(10, 20, shortcut="none")
    block = net.layer1[0]
    nn.init.zeros_(block.bn2.weight)
    nn.init.zeros_(block.bn2.bias)
    assert block(torch.rand(2, 16, 8, 8)).abs().sum() == 0


def test_stride_sits_where_it_is_asked_for():
    paper, v15 = ResNet(10, 50, stride_in_1x1=True).layer2[0], ResNet(10, 50).layer2[0]
    assert (paper.conv1.stride, paper.conv2.stride) == ((2, 2), (1, 1))
    assert (v15.conv1.stride, v15.conv2.stride) == ((1, 1), (2, 2))


def test_he_initialisation_and_zero_last_gamma():
    net = ResNet(10, 50, zero_init_last=True)
    weight = net.layer4[0].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.02)
    assert all(block.bn3.weight.abs().sum() == 0 for block in net.layer2)
    assert all(block.bn2.weight.min() == 1 for block in net.layer2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 21}, "depth 21"),
        ({"depth": 20, "stride_in_1x1": True}, "bottleneck"),
        ({"depth": 20, "stem": "cifar"}, "depth 20 begins so anyway"),
        ({"depth": 18, "stem": "tiny"}, "stem tiny is unknown"),
        ({"depth": 20, "shortcut": "none", "zero_init_last": True}, "zero_init_last"),
    ],
)
def test_impossible_nets_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResNet(num_classes=10, **arguments)
