"""Nets that are counted and not trained."""

from studies.counting import build_net, count_net
from studies.study import CountAt


def count(name: str, **arguments: object) -> dict[str, float]:
    model = {"class_path": f"lit_models.{name}", "init_args": {"optimizer": {}, "lr_scheduler": None, **arguments}}
    return count_net(build_net(model, CountAt(1000, 224)), 224)


def test_most_of_vggs_parameters_are_in_its_fully_connected_layers() -> None:
    fc6, fc7, fc8 = 512 * 7 * 7 * 4096 + 4096, 4096 * 4096 + 4096, 4096 * 1000 + 1000
    pairs = [(3, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512)]
    convolutions = sum(9 * inputs * outputs + outputs for inputs, outputs in pairs)
    found = count("LitVGG", variant="A")
    assert found["parameters"] == convolutions + fc6 + fc7 + fc8 == 132_863_336
    assert found["fc_share"] == (fc6 + fc7 + fc8) / 132_863_336


def test_auxiliary_classifiers_do_not_count() -> None:
    found = count("LitGoogLeNet")
    assert found["fc_share"] == (1024 * 1000 + 1000) / found["parameters"]
