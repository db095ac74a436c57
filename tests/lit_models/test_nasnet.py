import math
from functools import partial
from typing import get_args

import lightning
import pytest
import timm
import torch
import torch.nn.functional as F
import yaml
from timm.models.nasnet import NASNetALarge
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from lit_models import LitNASNet
from lit_models.nets.nasnet import NASNet
from lit_models.nets.nasnet_cell import (
    OPERATIONS,
    Cell,
    CellShape,
    FactorizedReduction,
    avg_pool,
    drop_path,
    max_pool,
)
from lit_models.nets.nasnet_tables import NORMAL_CELL, REDUCTION_CELL, VARIANTS, VariantName, choose_variant
from lit_models.nets.surgery import swap_activation, swap_dropout, swap_norm
from tests.conftest import HOME, TINY

SGD = partial(torch.optim.SGD, lr=0.05)
NATIVE = {"large": 331, "mobile": 224, "cifar": 32}
SMALLEST = {"large": (3, 307, 354), "mobile": (3, 211, 258), "cifar": (1, 27, 32)}
SMALL_CELL = {"rows": [["sep_3x3", 0, "conv_3x3", 1], ["max_5x5", 2, "identity", 1]]}


def build(num_classes, variant="large", normal_cell=None, reduction_cell=None, auxiliary=True, **numbers):
    cells = normal_cell or NORMAL_CELL, reduction_cell or REDUCTION_CELL
    return NASNet(num_classes, choose_variant(variant, **numbers), *cells, auxiliary)


def small(variant="cifar", **arguments):
    return build(10, variant, **{"repeats": 1, "filters": 8, **arguments})


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_the_variants_of_the_signature_are_those_there_are():
    assert set(get_args(VariantName)) == set(VARIANTS)


@pytest.mark.parametrize(
    ("variant", "classes", "count", "aux"),
    [
        ("large", 1000, 88_753_150, 4_567_784),
        ("mobile", 1000, 5_289_978, 2_411_240),
        ("cifar", 10, 3_346_538, 1_631_498),
    ],
)
def test_parameters_are_those_of_the_paper(variant, classes, count, aux):
    with torch.device("meta"):
        net, plain = build(classes, variant), build(classes, variant, auxiliary=False)
    assert parameters(plain) == count
    assert parameters(net) == count + aux and parameters(net.aux) == aux


@pytest.mark.parametrize(
    ("variant", "classes", "giga"), [("large", 1000, 23.7834), ("mobile", 1000, 0.5636), ("cifar", 10, 0.5443)]
)
def test_multiply_adds_are_those_of_the_paper(variant, classes, giga):
    with torch.device("meta"):
        net, image = build(classes, variant).eval(), torch.empty(1, 3, NATIVE[variant], NATIVE[variant])
    with FlopCounterMode(display=False) as counter:
        net(image)
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga, rel=1e-3)


def test_n_and_f_are_free():
    with torch.device("meta"):
        net = build(10, "cifar", repeats=7, filters=96, auxiliary=False)  # 7 @ 2304 of Table 1
    assert net.last_linear.in_features == 2304
    assert sum(name.startswith("cell_") for name, _ in net.named_children()) == 21
    assert parameters(net) == 32_590_954


def shuffle_norms(net: nn.Module) -> None:
    """Norms as after a training, so that a wrong epsilon or a norm left out is seen."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.02, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)


def test_timms_keys_and_shapes():
    with torch.device("meta"):
        theirs, ours = timm.create_model("nasnetalarge").state_dict(), build(1000, auxiliary=False).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_timms_weights_give_timms_logits():
    torch.manual_seed(0)
    theirs = NASNetALarge(num_classes=10, num_features=24 * 8).eval()  # narrow, so that it is fast
    shuffle_norms(theirs)
    ours = build(10, "large", filters=8, auxiliary=False).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    with torch.no_grad():
        for size in (96, 97, 131, 166):  # even and odd at every reduction
            images = torch.randn(2, 3, size, size)
            expected = theirs(images)
            assert expected.std() > 0.1
            torch.testing.assert_close(ours(images), expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_timms_weights_give_timms_logits_at_full_width():
    torch.manual_seed(0)
    theirs, ours = timm.create_model("nasnetalarge").eval(), build(1000, auxiliary=False).eval()
    shuffle_norms(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    with torch.no_grad():
        for size in (128, 331):
            images = torch.randn(1, 3, size, size)
            torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-4)


@pytest.mark.parametrize("cells", [(None, None), (SMALL_CELL, SMALL_CELL)])
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_parameter_gets_a_gradient(variant, cells):
    net = small(variant, normal_cell=cells[0], reduction_cell=cells[1])
    net.progress.fill_(0.5)
    output = net(torch.randn(2, 3, SMALLEST[variant][1], SMALLEST[variant][1]))
    assert output.logits.shape == output.aux.shape == (2, 10)
    (output.logits.square().sum() + output.aux.square().sum()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_evaluation_is_deterministic_and_without_auxiliary_logits():
    net, images = small(drop_path=0.9).eval(), torch.randn(2, 3, 32, 32)
    net.progress.fill_(1)
    logits = net(images)
    assert isinstance(logits, torch.Tensor) and torch.equal(logits, net(images))
    again = small(drop_path=0.9).eval()
    again.load_state_dict(net.state_dict(), strict=True)
    assert torch.equal(again(images), logits)
    assert isinstance(small(auxiliary=False).train()(images), torch.Tensor)


def test_channels_last_and_bf16():
    torch.manual_seed(0)
    net, images = small(bn_momentum=1.0), torch.randn(2, 3, 32, 32)
    net(images)  # running statistics that fit, so that logits are of the order of one
    expected = net.eval()(images)
    net = net.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        net(images.contiguous(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-4
    )
    net.train()
    with torch.autocast("cpu", torch.bfloat16):
        output = net(images)
    assert output.logits.dtype == torch.bfloat16
    (output.logits.sum() + output.aux.sum()).backward()


def test_compiled_net_is_compiled_once_for_all_of_the_schedule():
    torch._dynamo.reset()
    torch.manual_seed(0)
    table = {"rows": [["conv_3x3", 0, "identity", 1]]}  # tracing Figure 4's takes ten seconds
    net = small(drop_path=0.5, normal_cell=table, reduction_cell=table)
    images, graphs = torch.randn(2, 3, 32, 32), []
    net.compile(backend=lambda graph, _: graphs.append(graph) or graph.forward, fullgraph=True)
    for progress in (0.0, 0.25, 0.5, 0.75):
        net.progress.fill_(progress)
        net(images)
    assert len(graphs) == 1


# -- structure ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "epsilon", "momentum", "dropout", "stem"),
    [("large", 1e-3, 0.0003, 0.5, 96), ("mobile", 1e-3, 0.0003, 0.5, 32), ("cifar", 1e-5, 0.1, 0.0, 24)],
)
def test_norm_dropout_and_stem_are_the_variants(variant, epsilon, momentum, dropout, stem):
    net = small(variant)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {epsilon} and {norm.momentum for norm in norms} == {momentum}
    assert net.head_drop.p == dropout and net.conv0.conv.out_channels == stem
    assert small(variant, bn_momentum=0.25).conv0.bn.momentum == 0.25


def test_cifars_first_cell_takes_the_stem_as_it_is():
    net = small()
    assert isinstance(net.cell_0.conv_prev_1x1, nn.Identity)
    assert isinstance(net.reduction_cell_0.conv_prev_1x1.conv, nn.Conv2d)
    assert net.cell_0.comb_iter_0_right.separable_1.depthwise_conv2d.in_channels == 24
    assert net.cell_0.fits["1"].conv.in_channels == 24 and net.cell_0.comb_iter_2_right.conv.in_channels == 24
    seen = []
    net.cell_0.fits["1"].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    images = torch.randn(2, 3, 32, 32)
    net.eval()(images)
    assert torch.equal(seen[0], net.conv0(images))


def test_what_the_cell_after_a_reduction_looks_back_to():
    # large: past the reduction's input, to what comes out of the stem's second cell, 4 states of F / 2
    assert small("large").cell_1.path_1.conv.in_channels == 4 * 4
    # mobile: the reduction's input, 6 states of F
    assert small("mobile").cell_1.path_1.conv.in_channels == small("cifar").cell_1.path_1.conv.in_channels == 6 * 8


def test_auxiliary_head_stands_before_the_second_reduction():
    net, order = small(repeats=2), []
    for name, module in net.named_children():
        module.register_forward_hook(lambda module, args, output, name=name: order.append(name))
    net(torch.randn(2, 3, 32, 32))
    assert order[order.index("aux") - 1] == "cell_3" and order[order.index("aux") + 1] == "reduction_cell_1"


def test_a_factorized_reduction_sees_every_pixel():
    cell = Cell(NORMAL_CELL, CellShape(4, 1), CellShape(1, 0), 2, False, 0.0)
    for path in (cell.path_1, cell.path_2):
        nn.init.ones_(path.conv.weight)
    cell.eval()
    image = torch.arange(1.0, 26).reshape(1, 1, 5, 5)
    halved = cell._match_prev(image) * (1 + cell.final_path_bn.eps) ** 0.5
    torch.testing.assert_close(halved[0, 0], image[0, 0, ::2, ::2])
    expected = torch.tensor([[7.0, 9, 0], [17, 19, 0], [0, 0, 0]])  # a pixel on, zeros beyond the border
    torch.testing.assert_close(halved[0, 1], expected)


def test_a_cells_own_reduction_is_the_module():
    cell = Cell(NORMAL_CELL, CellShape(4, 1), CellShape(3, 0), 5, False, 0.0)
    reduction, images = FactorizedReduction(3, 5), torch.rand(2, 3, 7, 8)
    reduction.load_state_dict({k: v for k, v in cell.state_dict().items() if k in reduction.state_dict()}, strict=True)
    assert torch.equal(reduction(images), cell._match_prev(images))


def pad_same(images, kernel, stride, value=0.0):
    """TensorFlow's SAME padding: as much as ceil(size / stride) outputs need, the larger half at the end."""
    totals = [max((math.ceil(size / stride) - 1) * stride + kernel - size, 0) for size in images.shape[2:]]
    (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in totals)
    return F.pad(images, (left, right, top, bottom), value=value)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("size", [(8, 9), (1, 2), (15, 4)])
def test_same_padding_is_tensorflows(size, kernel, stride):
    images = torch.randn(2, 3, *size)
    expected = F.max_pool2d(pad_same(images, kernel, stride, -math.inf), kernel, stride)
    torch.testing.assert_close(max_pool(3, 3, stride, kernel)(images), expected, rtol=0, atol=0)
    conv = OPERATIONS[f"sep_{kernel}x{kernel}"](3, 4, stride=stride).separable_1.depthwise_conv2d
    expected = F.conv2d(pad_same(images, kernel, stride), conv.weight, stride=stride, groups=3)
    torch.testing.assert_close(conv(images), expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 9), (1, 2), (15, 4)])
def test_the_average_leaves_the_padding_out_as_tensorflows(size, stride):
    images, layer = torch.randn(2, 3, *size), avg_pool(3, 3, stride)
    layer.count_include_pad = False
    sums, counts = (F.avg_pool2d(pad_same(x, 3, stride), 3, stride) for x in (images, torch.ones_like(images)))
    torch.testing.assert_close(layer(images), sums / counts)


def test_only_the_large_net_counts_padding_as_timm_does():
    for variant in VARIANTS:
        pools = [module for module in small(variant).modules() if isinstance(module, nn.AvgPool2d)]
        counts = {pool.count_include_pad for pool in pools if pool.stride == (2, 2)}
        assert counts == {variant == "large"}
        assert not any(pool.count_include_pad for pool in pools if pool.kernel_size == 3 and pool.stride == 1)


def test_initialisation_over_the_fan_out():
    torch.manual_seed(0)
    net = build(10, "cifar", repeats=1)
    deep = net.cell_2.comb_iter_0_left.separable_1
    assert deep.depthwise_conv2d.weight.std().item() == pytest.approx((2 / 25) ** 0.5, rel=0.05)
    assert deep.pointwise_conv2d.weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)
    assert net.last_linear.weight.std().item() == pytest.approx((2 / 10) ** 0.5, rel=0.05)
    assert net.last_linear.bias.abs().sum() == 0


# -- ScheduledDropPath ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "cells", "most"), [("cifar", 20, 0.4), ("large", 22, 0.3), ("mobile", 16, 0.0)])
def test_drop_path_grows_with_depth(variant, cells, most):
    with torch.device("meta"):
        net = build(10, variant)
    drops = [cell.drop for cell in net.modules() if isinstance(cell, Cell)]
    assert drops == pytest.approx([most * (c + 1) / cells for c in range(cells)])


def test_a_path_is_dropped_per_image_and_scaled():
    torch.manual_seed(0)
    dropped = drop_path(torch.ones(4000, 2, 3, 3), torch.tensor(0.8))
    assert (dropped.flatten(1).amin(1) == dropped.flatten(1).amax(1)).all()
    assert dropped.unique().tolist() == pytest.approx([0, 1.25])
    assert (dropped[:, 0, 0, 0] > 0).float().mean().item() == pytest.approx(0.8, abs=0.03)


def test_keep_follows_progress_and_spares_identity(monkeypatch):
    kept = []
    monkeypatch.setattr("lit_models.nets.nasnet_cell.drop_path", lambda x, keep: kept.append(keep.item()) or x)
    net, images = small(drop_path=0.4), torch.randn(2, 3, 32, 32)
    net.progress.fill_(0.25)
    net(images)
    operations = {False: 8, True: 9}  # of ten in a cell: two are identity in the normal, one in the reduction cell
    expected = [
        1 - 0.25 * (c + 1) / 5 * 0.4 for c, spec in enumerate(net.cell_specs) for _ in range(operations[spec.reduces])
    ]
    assert kept == pytest.approx(expected)
    kept.clear()
    net.eval()(images)
    small(drop_path=0.0)(images)
    assert not kept


def test_drop_path_comes_from_torchs_global_generator():
    net, images = small(drop_path=0.5), torch.randn(4, 3, 32, 32)
    net.progress.fill_(1)
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(net(images).logits)
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])


def progress_of_a_run(folder, **fit):
    """Train two epochs of three steps, and say at which progress the net saw each batch."""
    model, seen = LitNASNet(10, "cifar", repeats=1, filters=8, aux_weight=0, optimizer=SGD), []
    model.net.register_forward_pre_hook(lambda net, args: seen.append(net.progress.item()))
    keep_all = lightning.pytorch.callbacks.ModelCheckpoint(folder, save_top_k=-1, filename="{epoch}")
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_progress_bar=False, callbacks=[keep_all]
    )
    batches = DataLoader(TensorDataset(torch.randn(6, 3, 16, 16), torch.arange(6)), batch_size=2)
    trainer.fit(model, batches, **fit)
    return seen


def test_progress_is_the_share_of_planned_steps_also_after_resuming(tmp_path):
    assert progress_of_a_run(tmp_path) == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])
    resumed = progress_of_a_run(tmp_path / "more", ckpt_path=tmp_path / "epoch=0.ckpt")
    assert resumed == pytest.approx([3 / 6, 4 / 6, 5 / 6])


# -- a user's own cells ---------------------------------------------------------------------------------------------


def test_the_default_cells_are_the_papers():
    torch.manual_seed(0)
    default = small().eval()
    given = small(normal_cell=NORMAL_CELL, reduction_cell=REDUCTION_CELL).eval()
    given.load_state_dict(default.state_dict(), strict=True)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(default(images), given(images))


def test_rows_do_what_they_say():
    table = {"rows": [("max_3x3", 0, "identity", 1), ("avg_3x3", 2, "identity", 0)], "output": [1, 2, 3]}
    cell = Cell(table, CellShape(6, 0), CellShape(5, 0), 4, False, 0.0).eval()
    x, before = torch.randn(2, 6, 7, 7), torch.randn(2, 5, 7, 7)
    h0, h1 = cell.conv_1x1(x), cell.conv_prev_1x1(before)
    h2 = F.max_pool2d(h0, 3, 1, 1) + h1
    h3 = F.avg_pool2d(h2, 3, 1, 1, count_include_pad=False) + h0
    torch.testing.assert_close(cell(x, before, torch.zeros(())), torch.cat([h1, h2, h3], 1))


def test_unused_states_are_the_output_and_a_reductions_inputs_are_halved():
    table = {"rows": [["conv_3x3", 0, "max_7x7", 0]]}
    net = small(normal_cell=table, reduction_cell=table)
    assert net.last_linear.in_features == 2 * 4 * 8  # state 1, which no row takes, and the row
    assert {"path_1", "path_2"} <= {name for name, _ in net.reduction_cell_0.fits["1"].named_children()}
    assert net(torch.randn(2, 3, 32, 32)).logits.shape == (2, 10)


@pytest.mark.parametrize("operation", list(OPERATIONS))
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [6, 4])
def test_every_operation_gives_its_shape(operation, stride, channels):
    layer = OPERATIONS[operation](channels, 4, stride=stride)
    for size in (9, 8):
        assert layer(torch.randn(2, channels, size, size)).shape == (2, 4, -(-size // stride), -(-size // stride))


def test_own_rows_from_yaml(run, here):
    model = {"variant": "cifar", "repeats": 1, "filters": 8, "normal_cell": SMALL_CELL}
    model["optimizer"] = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}}
    path = here / "own.yaml"
    path.write_text(yaml.safe_dump({"model": {"class_path": "lit_models.LitNASNet", "init_args": model}}))
    tiny = [("32" if value == "16" else value) for value in TINY]
    run("fit", "--config", path, *tiny, "--run_name", "own/cell", "--trainer.max_epochs", "1")
    checkpoint = here / "runs/own/cell/version_0/checkpoints/last.ckpt"
    assert "net.cell_0.comb_iter_0_right.conv.weight" in torch.load(checkpoint, weights_only=True)["state_dict"]
    run("test", "--ckpt_path", checkpoint)


@pytest.mark.parametrize(
    ("rows", "output", "message"),
    [
        ([], None, "The normal cell has no rows"),
        ([("sep_9x9", 0, "identity", 1)], None, "Row 0 of the normal cell has the operation sep_9x9, .* sep_3x3"),
        ([("identity", 0, "identity", 1), ("max_3x3", 0, "sep_3x3", 3)], None, "Row 1 .* hidden state 3, .* 0 to 2"),
        ([("identity", -1, "identity", 1)], None, "hidden state -1"),
        ([("identity", 0, "identity")], None, "Row 0 of the normal cell is .*must be"),
        ([("identity", 0, "identity", 1)], [2, 3], "The output of the normal cell has hidden state 3, .* 0 to 2"),
        ([("identity", 0, "identity", 0)], [2], "Hidden state 1 of the normal cell goes nowhere"),
        ([("identity", 0, "identity", 1), ("identity", 0, "identity", 1)], [3], "Hidden state 2 .* goes nowhere"),
    ],
)
def test_wrong_rows_are_one_sentence(rows, output, message):
    table = {"rows": rows} if output is None else {"rows": rows, "output": output}
    with pytest.raises(ValueError, match=message) as error:
        small(normal_cell=table)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=message.replace("normal", "reduction")):
        small(reduction_cell=table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "small"}, "variant small is no NASNet-A .* large, mobile, cifar"),
        ({"repeats": 0}, "repeats is 0"),
        ({"filters": 7}, "filters is 7: it must be at least 8"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
        ({"bn_momentum": 0.0}, "bn_momentum is 0.0"),
        ({"aux_weight": -0.1}, "aux_weight is -0.1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LitNASNet(10, optimizer=SGD, **{"variant": "cifar", "repeats": 1, "filters": 8, **arguments})


def test_a_wrong_operation_on_the_command_line(fails):
    model = ["--model", "lit_models.LitNASNet", "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.1"]
    cell = "{rows: [[sep_9x9, 0, identity, 1]]}"
    line = fails("fit", *model, "--model.variant", "cifar", "--model.normal_cell", cell, "--run_name", "a/b", *TINY)
    assert "sep_9x9, which does not exist" in line


# -- LitNASNet ------------------------------------------------------------------------------------------------------


def lit(variant="cifar", **arguments):
    return LitNASNet(10, variant, **{"repeats": 1, "filters": 8, "optimizer": SGD, **arguments})


def test_auxiliary_loss_weighs_two_fifths():
    model, labels = lit(), torch.tensor([1, 2])
    output = model(torch.randn(2, 3, 32, 32))
    losses = model.losses(output, labels)
    assert set(losses) == {"main", "aux"}
    torch.testing.assert_close(model.loss(output, labels), losses["main"] + 0.4 * losses["aux"])
    assert lit(aux_weight=0).net.aux is None


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_smallest_legal_sizes(variant):
    smallest, low, high = SMALLEST[variant]
    model = lit(variant)
    for size in (low, high):
        assert model(torch.randn(2, 3, size, size)).aux.shape == (2, 10)
    for size in (low - 1, high + 1):
        with pytest.raises(ValueError, match=f"{size} px in training: they must have between {low} and {high}"):
            model(torch.randn(2, 3, size, size))
        with pytest.raises(RuntimeError):  # a size that the net itself cannot take
            model.net(torch.randn(2, 3, size, size))
    plain = lit(variant, aux_weight=0)
    assert (
        plain(torch.randn(2, 3, smallest, smallest)).shape == model.eval()(torch.randn(2, 3, smallest, smallest)).shape
    )
    if smallest > 1:
        with pytest.raises(ValueError, match=f"{smallest - 1} px in evaluation: they must have at least {smallest}"):
            model(torch.randn(2, 3, smallest - 1, smallest - 1))
        with pytest.raises(RuntimeError):
            model.net(torch.randn(2, 3, smallest - 1, smallest - 1))


def test_a_new_head_for_other_classes(tmp_path):
    torch.save(small().state_dict(), tmp_path / "ten.pth")
    model = LitNASNet(7, "cifar", repeats=1, filters=8, optimizer=SGD, weights=str(tmp_path / "ten.pth"))
    assert model.net.last_linear.out_features == model.net.aux.linear.out_features == 7


# -- surgery --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["group", "none"])
def test_norms_are_swapped(norm):
    net = small()
    swap_norm(net, norm)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    output = net(torch.randn(2, 3, 32, 32))
    (output.logits.sum() + output.aux.sum()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_dropout_is_swapped():
    net = small()
    swap_dropout(net, 0.3)
    assert net.head_drop.p == 0.3


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "selu"])
def test_activations_are_swapped(activation):
    net, images = small("cifar"), torch.randn(2, 3, 32, 32)
    before = net.eval()(images)
    count = sum(isinstance(module, nn.ReLU) for module in net.modules())
    swap_activation(net, activation)
    kinds = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "selu": nn.SELU}
    assert sum(type(module) is kinds[activation] for module in net.modules()) == count
    # Several rows take a state: what acts on it must leave it as it is
    assert torch.equal(net(images), before) == (activation == "relu")
    output = net.train()(images)
    (output.logits.sum() + output.aux.sum()).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


# -- recipes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "rate", "decay", "clip", "batch"),
    [
        ("cifar10/nasnet_a_6_768", 0.025, 5e-4, 5, 32),
        ("imagenet/nasnet_a_large", 1.5, 5e-5, 10, 1600),
        ("imagenet/nasnet_a_mobile", 2.0, 4e-5, 10, 1600),
    ],
)
def test_recipes(path, rate, decay, clip, batch):
    config = yaml.safe_load((HOME / "configs" / f"{path}.yaml").read_text())
    model, trainer = config["model"]["init_args"], config["trainer"]
    variant = VARIANTS[model["variant"]]
    optimizer = model["optimizer"]["init_args"]
    assert (optimizer["lr"], optimizer["weight_decay"], trainer["gradient_clip_val"]) == (rate, decay, clip)
    assert config["data"]["init_args"]["batch_size"] == batch and model["aux_weight"] == 0.4
    assert model["drop_path"] == variant.drop_path and model["decay_norm_and_bias"] is False
    if variant.imagenet:
        assert config["data"]["init_args"]["size"] == NATIVE[model["variant"]] and optimizer["eps"] == 1.0
        assert [c["init_args"] for c in trainer["callbacks+"] if "init_args" in c] == [
            {"step_size": 2.4, "gamma": 0.97},
            {"decay": 0.9999, "use_buffers": False},
        ]
    else:
        assert trainer["max_epochs"] == model["lr_scheduler"]["init_args"]["T_max"] == 600
