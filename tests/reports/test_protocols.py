"""The table of models x ways of testing, what the papers say beside it, and the drawing of views."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from checkpointing.predictions import file_hash, predictions_path
from checkpointing.record import CheckpointRecord
from datamodules.views import Views
from reports import metrics, protocols
from reports.papers.architectures import ARCHITECTURES
from reports.papers.published import PUBLISHED, find_published_row, is_imagenet, is_row_of
from tests.conftest import DIGITS, HOME
from tests.handmade import checkpoint, predictions

LABELS = np.random.default_rng(0).integers(7, size=200)


def config(family="LitResNet", data="datamodules.Digits", side=None, **arguments):
    """What a checkpoint holds of its run."""
    augmentation = {"augmentation": {"shorter_side": side}} if side else {}
    return {
        "model": {"class_path": f"lit_models.{family}", "init_args": arguments},
        "data": {"class_path": data, "init_args": augmentation},
    }


def logits(seed, sharpness=1.5):
    """Of a mediocre net, [200, 7]; all of them find the same images hard."""
    noise = sum(np.random.default_rng(each).normal(size=(200, 7)) for each in (99, seed))
    return 0.8 * noise + sharpness * np.eye(7)[LABELS]


@pytest.fixture
def runs(here):
    """Three runs that were tested by two protocols, and validated by one."""
    paths = []
    for number in range(3):
        path = here / "runs" / "digits" / "net" / f"version_{number}" / "checkpoints" / "best.ckpt"
        path.parent.mkdir(parents=True)
        names = [f"class {k}" for k in range(7)]
        record = CheckpointRecord(config("LitGoogLeNet", stem="cifar", seed=number), names, preprocessing={})
        torch.save(checkpoint(record), path)
        for protocol, views in (("center", 1), ("ten_crop", 10)):
            content = {"protocol": protocol, "views": views, "checkpoint_hash": file_hash(path)}
            scores = logits(10 * number, sharpness=1.5 + (views > 1))
            predictions(scores, LABELS, **content).write(predictions_path(path, protocol))
            validation = predictions(4 * scores, LABELS, **content, data_hash="validation")
            validation.write(predictions_path(path, protocol, "validate"))
        paths.append(str(path.parents[1]))
    return paths


def report(*arguments):
    """Run the report and return what it wrote."""
    protocols.main([*map(str, arguments), "--json", "r.json", "--html", "r.html", "--markdown", "r.md"])
    return json.loads(open("r.json").read()), open("r.html").read(), open("r.md").read()


# The table


def test_models_times_views(runs, capsys):
    result, html, markdown = report("--checkpoints", *runs, "--protocols", "center", "ten_crop")
    rows = result["rows"]
    assert [(row["models"], row["protocol"], row["views"], row["cost"]) for row in rows] == [
        (1, "center", 1, 1), (1, "ten_crop", 10, 10), (3, "center", 1, 3), (3, "ten_crop", 10, 30)
    ]  # fmt: skip
    each = [(logits(seed).argmax(1) != LABELS).mean() for seed in (0, 10, 20)]
    assert rows[0]["top1_error"] == pytest.approx(np.mean(each))
    assert rows[0]["top1_range"] == pytest.approx([min(each), max(each)])
    assert [result["top1_error"] for result in rows[0]["each"]] == pytest.approx(each)
    scores = [logits(seed) for seed in (0, 10, 20)]
    ranks = [(s > s[np.arange(200), LABELS][:, None]).sum(1) for s in scores]
    assert rows[0]["top5_error"] == pytest.approx(np.mean([rank >= 5 for rank in ranks])) and max(map(max, ranks)) > 4
    together = np.mean([np.exp(s) / np.exp(s).sum(1, keepdims=True) for s in scores], axis=0)
    assert rows[2]["top1_error"] == pytest.approx((together.argmax(1) != LABELS).mean(), abs=0.006)
    assert rows[2]["top1_error"] < rows[0]["top1_error"] and len(rows[2]["each"]) == 1
    for row in rows:
        low, high = row["top1_interval"]
        assert low < row["top1_error"] < high and row["top5_error"] < row["top1_error"]
        assert row["top1_difference"] == pytest.approx(row["top1_error"] - rows[0]["top1_error"])
        low, high = row["top1_difference_interval"]
        assert low <= row["top1_difference"] <= high
    assert rows[0]["top1_difference_interval"] == [0, 0] and rows[3]["top1_difference_interval"][1] < 0
    assert result["error_analysis"]["protocol"] == "ten_crop" and result["images"] == 200
    printed = capsys.readouterr().out
    assert "Test 1" not in printed and "Wrote r.html" in printed
    percents = f"{100 * rows[0]['top1_range'][0]:.2f} to {100 * rows[0]['top1_range'][1]:.2f}"
    for text in (printed, html, markdown):
        assert percents in text and "digits/net/version_2" in text and "base" in text
    assert html.count('class="chart"') == 3


def test_every_kind_of_file(runs, here, capsys):
    command = ["--checkpoints", *runs, "--protocols", "center", "ten_crop"]
    result, html, markdown = report(*command, "--latex", "r.tex", "--svg", "figures")
    best = min(result["rows"], key=lambda row: row["top1_error"])
    lead = f"The ensemble of 3 models has the lowest error: {best['top1_error']:.2%} top-1 error (95% interval"
    assert lead in html and lead in markdown and lead in capsys.readouterr().out
    assert lead.replace("%", r"\%") in Path("r.tex").read_text() and r"ten\_crop" in Path("r.tex").read_text()
    names = {path.name for path in (here / "figures").iterdir()}
    assert len(names) == 6 and {name.rpartition(".")[2] for name in names} == {"svg", "png"}
    assert "error-against-cost-with-95-intervals-dashes-each-model.svg" in names


def test_a_difference_is_paired(runs):
    """On the same images: two models that are wrong on the same ones differ by less than chance on either."""
    rows = report("--checkpoints", runs[0], "--protocols", "center", "ten_crop")[0]["rows"]
    wide = np.diff(rows[0]["top1_interval"])[0] + np.diff(rows[1]["top1_interval"])[0]
    assert 0 < np.diff(rows[1]["top1_difference_interval"])[0] < wide
    assert [row["models"] for row in rows] == [1, 1] and rows[0]["checkpoints"][0].endswith(
        "version_0/checkpoints/best.ckpt"
    )


def test_the_same_model_several_times_is_that_model(runs):
    rows = report("--checkpoints", *[runs[0]] * 3)[0]["rows"]
    for key in ("top1_error", "top5_error", "nll", "brier", "ece"):
        assert rows[1][key] == pytest.approx(rows[0][key], abs=1e-6)
    assert rows[1]["top1_difference_interval"] == [0, 0] and rows[1]["cost"] == 3


def test_the_order_of_models_does_not_matter(runs):
    first = report("--checkpoints", *runs)[0]["rows"][1]
    second = report("--checkpoints", *runs[::-1])[0]["rows"][1]
    assert {k: v for k, v in first.items() if k != "checkpoints"} == {
        k: v for k, v in second.items() if k != "checkpoints"
    }


def test_a_temperature_from_the_validation_images(runs):
    result, html, _ = report("--checkpoints", runs[0], "--protocols", "ten_crop", "--calibrate")
    look, row = result["error_analysis"], result["rows"][0]
    validation = predictions(4 * logits(0, 2.5), LABELS).log_probabilities
    assert (
        look["temperature"] == pytest.approx(metrics.fit_temperature(validation, LABELS))
        and not look["fitted_on_test_images"]
    )
    assert look["at_temperature"]["nll"] > row["nll"]  # the net was made to be four times as sure there
    assert f"T = {look['temperature']:.3f}" in html and "log-probabilities are divided by T" in html
    assert "temperature" not in report("--checkpoints", runs[0])[0]["error_analysis"]


def test_a_temperature_that_was_fitted_on_the_test_images_says_so(runs, here):
    for path in map(str, runs):
        best = here / path / "checkpoints" / "best.ckpt"
        predictions_path(best, "center", "validate").write_bytes(predictions_path(best, "center").read_bytes())
    result, html, _ = report("--checkpoints", *runs, "--calibrate")
    assert (
        result["error_analysis"]["fitted_on_test_images"]
        and "are the test images: the calibration at T is optimistic" in html
    )


def test_a_error_analysis(runs):
    result, html, markdown = report("--checkpoints", runs[0])
    look = result["error_analysis"]
    matrix = np.array(look["confusion"])
    assert matrix.shape == (7, 7) and matrix.sum() == 200
    assert 1 - matrix.trace() / 200 == pytest.approx(result["rows"][0]["top1_error"])
    assert look["class_errors"] == pytest.approx(1 - matrix.diagonal() / matrix.sum(1))
    surest = look["confident_errors"]
    assert len(surest) == 10 and all(m["class"] != m["predicted"] for m in surest)
    chances = [m["probability"] for m in surest]
    assert chances == sorted(chances, reverse=True) and all(m["of_the_class"] < m["probability"] for m in surest)
    assert LABELS[surest[0]["image"]] == int(surest[0]["class"].split()[1])
    row = f"| {surest[0]['image']} | {surest[0]['class']} | {surest[0]['predicted']} | {chances[0]:.4f} |"
    assert row in markdown and "Confusion matrix" in html


def many(runs, classes=40, **changes):
    """Replace the first run's test by one of many classes."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes - 1), 5)  # of the last class no image
    scores = rng.normal(size=(len(labels), classes)) + 2 * np.eye(classes)[labels]
    path = predictions_path(protocols.Path(runs[0]) / "checkpoints" / "best.ckpt", "center")
    digest = file_hash(path.parent / "checkpoints" / "best.ckpt")
    predictions(scores, labels, checkpoint_hash=digest, **changes).write(path)


def test_of_many_classes_the_worst_are_shown(runs):
    files = np.array([f"class/{number}.jpg" for number in range(195)])
    many(runs, files=files, complete=False)
    result, html, markdown = report("--checkpoints", runs[0])
    look = result["error_analysis"]
    assert "confusion" not in look and "Confusion matrix" not in html and len(look["confused_pairs"]) == 15
    assert look["class_errors"][-1] is None and "The 10 classes with the highest error" in markdown
    assert re.fullmatch(r"class/\d+\.jpg", look["confident_errors"][0]["image"]) and "| file | class |" in markdown
    assert "could not be read are left out" in markdown


def test_a_class_without_images_has_no_error(runs):
    many(runs, classes=20)
    result, _, markdown = report("--checkpoints", runs[0])
    assert np.array(result["error_analysis"]["confusion"]).sum(1).tolist() == [5] * 19 + [0]
    assert "| class 18 | 5 |" in markdown and "| class 19 | 0 |" not in markdown and "nan" not in markdown


def test_without_an_error_the_interval_is_wilsons(runs):
    path = protocols.Path(runs[0]) / "checkpoints" / "best.ckpt"
    right = predictions(9 * np.eye(4)[LABELS % 4], LABELS % 4, checkpoint_hash=file_hash(path))
    right.write(predictions_path(path, "center"))
    result, _, markdown = report("--checkpoints", runs[0])
    z = 1.959964
    assert "top5_error" not in result["rows"][0]
    assert result["rows"][0]["top1_interval"] == pytest.approx([0, z**2 / (200 + z**2)])
    assert f"No errors observed; 95 % upper bound {100 * (1 - 0.05 ** (1 / 200)):.2f} %." in markdown
    assert "No errors." in markdown
    assert "No errors observed" not in report("--checkpoints", runs[1])[2]


# Nets that have diverged


def diverge(run, *protocols):
    """Let predictions of a run be NaN."""
    path = Path(run) / "checkpoints" / "best.ckpt"
    for protocol in protocols:
        content = {"protocol": protocol, "checkpoint_hash": file_hash(path)}
        scores = np.full((200, 7), np.nan)
        predictions(scores, LABELS, **content).write(predictions_path(path, protocol))


def test_a_diverged_model_is_a_row_with_its_reason(runs, capsys):
    two = report("--checkpoints", runs[0], runs[2], "--protocols", "center", "ten_crop")[0]
    diverge(runs[1], "ten_crop")
    result, html, markdown = report("--checkpoints", *runs, "--protocols", "center", "ten_crop")
    assert result["rows"] == two["rows"] and two["diverged"] == []
    [diverged] = result["diverged"]
    assert diverged["checkpoint"].endswith("net/version_1/checkpoints/best.ckpt")
    assert diverged["reason"] == "diverged: its predictions are NaN (ten_crop)"
    line = "| digits/net/version_1 |  |  | diverged: its predictions are NaN (ten_crop) |"
    assert line in markdown and "1 model diverged: left out of all means, ensembles and figures." in markdown
    assert diverged["reason"] in html and diverged["reason"] in capsys.readouterr().out


def test_beside_a_diverged_model_a_single_one_is_shown(runs):
    diverge(runs[1], "center")
    result, _, markdown = report("--checkpoints", runs[1], runs[0])
    assert len(result["rows"]) == 1 and result["error_analysis"]["models"] == 1
    assert "| digits/net/version_1 |  | diverged: its predictions are NaN (center) |" in markdown


def test_where_all_have_diverged_the_report_says_so(runs):
    for path in runs[:2]:
        diverge(path, "center")
    result, html, markdown = report("--checkpoints", *runs[:2])
    assert len(result["diverged"]) == 2 and "rows" not in result
    assert "All models have diverged." in html and markdown.count("| diverged: its predictions are NaN") == 2


# What is wrong is said in one sentence


@pytest.fixture
def fails(capsys):
    def type_it(*arguments):
        with pytest.raises(SystemExit) as stop:
            protocols.main([str(argument) for argument in arguments])
        assert isinstance(stop.value.code, str) and "\n" not in stop.value.code  # printed on stderr, with status 1
        return stop.value.code

    return type_it


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "error: No checkpoints are given: name runs or files"),
        (["--checkpoints", "nowhere"], "error: There is no checkpoint nowhere"),
        (["--checkpoints", "RUN", "text.jpg"], "text.jpg is no checkpoint that can be read"),
        (["--checkpoints", "RUN", "--protocols", "ten_crops"], "error: There is no protocol ten_crops: choose one of"),
        (["--checkpoints", "RUN", "--html", "no/where.html"], "no/where.html cannot be written: there is no folder"),
        (["--checkpoints", "RUN", "--html", "runs"], "runs cannot be written (Is a directory): name another file."),
        (["--draw", "photo.png", "--output", "v.png"], "v.png cannot be written (Is a directory): name another file."),
        (["--checkpoints", "RUN", "--htm", "x"], "error: There is no argument --htm here. Did you mean --html?"),
        (["--checkpoints", "RUN", "--data.root", "X", "--calibarte"], "--calibarte here. Did you mean --calibrate?"),
        (["--data.root", "X", "--checkpoints", "RUN", "--config=a.yaml", "stray"], "There is no argument stray here."),
        (["--checkpoints", "RUN", "--datum.root", "X"], "There is no argument --datum.root here. See --help."),
        (["--checkpoints", "RUN", "--data.root"], "argument --data.root: expected one argument"),
        (["RUN"], "error: There is no argument "),
        (["--checkpoints", "RUN", "--trainer.devices", "2"], "A report tests on one device and takes no --trainer.dev"),
        (["--draw", "nowhere.jpg"], "nowhere.jpg cannot be drawn on (it cannot be opened: No such file"),
        (["--draw", "text.jpg"], "text.jpg cannot be drawn on (it cannot be read as an image"),
        (["--draw", "photo.png", "--size", "0"], "size is 0: it must be at least 1."),
        (["--draw", "photo.png", "--output", "views.gif"], "views.gif cannot be drawn: name a .png or .pdf file"),
        (["--draw", "photo.png", "--output", "no/v.png"], "no/v.png cannot be drawn: name a .png or .pdf file"),
        (["--draw", "photo.png", "--protocols", "all"], "There is no protocol all: choose one of"),
        (["--draw", "photo.png", "--protocols", "center@8"], "would cut views of 224 px out of images whose shorter"),
        (["--draw", "long.png"], "long.png has 2 x 900 pixels, too long to be drawn on: crop it."),
    ],
)  # fmt: skip
def test_sentences(runs, here, fails, arguments, sentence):
    (here / "text.jpg").write_text("no image")
    (here / "v.png").mkdir()
    Image.new("RGB", (30, 20)).save(here / "photo.png")
    Image.new("RGB", (900, 2)).save(here / "long.png")
    said = fails(*[runs[0] if argument == "RUN" else argument for argument in arguments])
    assert said.startswith("error: ") and sentence in said


def test_members_of_different_classes(runs, fails):
    many(runs)
    assert "(center) disagree on the classes (7 and 40 of them): take runs" in fails("--checkpoints", *runs)


def test_models_of_different_classes_are_refused_before_a_test(runs, fails):
    record = CheckpointRecord(config(), [*"abcdefg"], preprocessing={})
    # It has not been tested either
    torch.save(checkpoint(record), protocols.Path(runs[1]) / "checkpoints" / "best.ckpt")
    said = fails("--checkpoints", *runs)
    assert "best.ckpt disagree on the classes (number 0 is a and class 0): take runs" in said


@pytest.mark.slow
def test_an_error_ends_the_program_with_status_1_and_no_traceback():
    command = [sys.executable, "-m", "reports.protocols", "--checkpoints", "nowhere"]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: There is no checkpoint nowhere") and done.stderr.count("\n") == 1


# What the papers say


def imagenet(family, **more):
    return config(family, "datamodules.ImageNet", **more)


def test_every_published_row_is_of_a_net_and_a_protocol_there_are():
    names = {row.name for row in ARCHITECTURES}
    for row in PUBLISHED:
        assert names.issuperset(row.nets), row
        Views(row.protocol, 224)
        printed = row.error.split(" / ")
        assert len(printed) == 2 and printed != ["-", "-"], row
        assert all(re.fullmatch(r"\d+\.\d\d?|-", error) for error in printed), row
        top1, top5 = row.errors
        assert all(3 <= error < 30 for error in (top1, top5) if error is not None), row
        assert top1 is None or top5 is None or top5 < top1, row
        assert row.arxiv, row
    keys = {(tuple(row.nets), row.protocol, row.paper, row.shorter_side) for row in PUBLISHED}
    assert len(keys) == len(PUBLISHED) == 75


def test_googlenets_table_3():
    one, errors = [imagenet("LitGoogLeNet")], []
    for models in (1, 7):
        for protocol in ("center", "ten_crop", "crops_144"):
            found = find_published_row([one * models], protocol, [one], "center", imagenet=True)
            assert found.errors[0] is None and found.source.startswith("GoogLeNet, Table 3")
            errors.append(found.error)
    assert errors == ["- / 10.07", "- / 9.15", "- / 7.89", "- / 8.09", "- / 7.62", "- / 6.67"]
    assert find_published_row([one * 3], "center", [one], "center", imagenet=True) is None


@pytest.mark.parametrize(
    ("configs", "protocol", "printed"),
    [
        ([imagenet("LitVGG", variant="D", side=[256, 256])], "dense", "27.0 / 8.8"),
        ([imagenet("LitVGG", side=[384, 384])], "dense@384", "26.8 / 8.7"),
        ([imagenet("LitVGG", side=[256, 512])], "dense@384", "25.6 / 8.1"),
        ([imagenet("LitVGG", side=[256, 512])], "dense_multi_scale@256-384-512", "24.8 / 7.5"),
        ([imagenet("LitVGG", side=[256, 512])], "dense@256", None),
        ([imagenet("LitVGG")], "dense", None),  # trained in another way
        ([imagenet("LitVGG", batch_norm=True, side=[256, 256])], "dense", None),
        ([imagenet("LitVGG", activation="selu", side=[256, 256])], "dense", None),
        ([imagenet("LitVGG", dropout=0.3, side=[256, 256])], "dense", "27.0 / 8.8"),
        ([imagenet("LitVGG", variant="E", side=[256, 512]), imagenet("LitVGG", side=[256, 512])],
         "dense+multi_crop", "23.7 / 6.8"),
        ([imagenet("LitResNet", depth=34)], "ten_crop", "24.52 / 7.46"),  # unset is option B
        ([imagenet("LitResNet", depth=34, shortcut="C")], "ten_crop", "24.19 / 7.40"),
        ([imagenet("LitResNet", depth=50, stride_in_1x1=True)], "ten_crop", "22.85 / 6.71"),
        ([imagenet("LitResNet", depth=50)], "ten_crop", None),  # v1.5 is another net
        ([imagenet("LitResNet", depth=152, stride_in_1x1=True)], "dense_multi_scale@224-256-384-480-640",
         "19.38 / 4.49"),
        ([imagenet("LitInceptionV3", transform_input=True)], "inception_12", "19.8 / 4.6"),
        ([imagenet("LitInceptionResNetV2")] * 3 + [imagenet("LitInceptionV4")], "inception_144", "16.4 / 3.1"),
        ([imagenet("LitInceptionResNetV2")] * 2 + [imagenet("LitInceptionV4")] * 2, "inception_144", None),
        ([imagenet("LitNASNet", variant="large")], "center", None),
    ],
)  # fmt: skip
def test_the_papers_row_is_that_of_the_net_the_protocol_and_the_models(configs, protocol, printed):
    found = find_published_row([configs], protocol, [configs[:1]], protocol, imagenet=True)
    assert (found and found.error) == printed
    assert found is None or found in PUBLISHED  # no difference


def test_beside_other_images_a_paper_says_what_its_protocol_is_worth():
    net = [config("LitGoogLeNet", stem="cifar")]
    found = find_published_row([net] * 3, "ten_crop", [net] * 3, "center", imagenet=False)
    assert (found.error, found.errors) == ("- / -0.92", (None, -0.92)) and found not in PUBLISHED
    assert find_published_row([net * 7], "center", [net] * 7, "center", imagenet=False).error == "- / -1.98"
    assert find_published_row([net], "center", [net], "center", imagenet=False) is None  # the base itself
    vgg = [config("LitVGG", head="cifar")]
    found = find_published_row([vgg], "dense+multi_crop", [vgg], "dense_multi_scale", imagenet=False)
    assert found.error == "-0.40 / -0.30" and found.source == "VGG, Table 5, S = 256-512, its base Table 4"
    assert (
        find_published_row([vgg], "ten_crop", [vgg], "center", imagenet=False).error == "-0.43 / -0.57"
    )  # the ResNet paper's
    assert find_published_row([vgg], "multi_crop", [vgg], "center", imagenet=False) is None  # two papers, two trainings
    assert find_published_row([vgg], "dense_multi_scale", [vgg], "dense", imagenet=False) is None
    assert (
        find_published_row([net], "ten_crop", [net, vgg], "center", imagenet=False) is None
    )  # the base is no single net


def test_on_other_images_no_error_of_a_paper_is_shown(runs):
    _, _, markdown = report("--checkpoints", *runs, "--protocols", "center", "ten_crop")
    assert "paper, to its base" in markdown and "- / -0.92 (GoogLeNet, Table 3)" in markdown
    assert "9.15" not in markdown and "10.07" not in markdown


def test_imagenet_is_known_by_its_classes():
    names = ["tench, Tinca tinca", *map(str, range(999))]
    assert is_imagenet(imagenet("LitVGG"), names) and is_imagenet(imagenet("LitVGG"), ["n01440764", *names[1:]])
    assert not is_imagenet(imagenet("LitVGG"), names[:100]) and not is_imagenet(config(), names)
    assert not is_imagenet(imagenet("LitVGG"), ["cat", *names[1:]])


def test_a_net_of_the_users_own_has_no_paper():
    assert not is_row_of(PUBLISHED[0], [config("LitOwn")], "center", imagenet=True)
    own = config("LitGoogLeNet") | {"model": {"class_path": "own.LitGoogLeNet", "init_args": {}}}
    assert not is_row_of(PUBLISHED[0], [own], "center", imagenet=True)
    assert is_row_of(PUBLISHED[0], [config("LitGoogLeNet")], "center", imagenet=True)


# For real


def test_a_report_agrees_with_test_to_the_last_printed_digit(tiny_run, capsys):
    capsys.readouterr()
    facts, page, markdown = report("--checkpoints", tiny_run, "--protocols", "center", "ten_crop")
    printed = capsys.readouterr().out
    tested = re.findall(r"Tested .* top-1 error (\S+)%, top-5 error (\S+)%, loss (\S+)", printed)
    assert len(tested) == 2
    for protocol, (top1, top5, loss) in zip(("center", "ten_crop"), tested, strict=True):
        assert re.search(rf"\| 1 \| {protocol} .*\| {re.escape(top1)} \[.*\| {re.escape(top5)} \[", markdown)
        assert re.search(rf"\| 1 model, {protocol} \| \S+ \| {re.escape(loss)} \|", markdown)
    errors = facts["error_analysis"]["confident_errors"]
    assert page.count("data:image/png;base64,") == len(errors) > 0  # pictures of the mistakes


@pytest.mark.slow
def test_two_nets_on_digits_from_the_command_line(run, here, capsys):
    for seed in (1, 2):
        run("fit", "--config", DIGITS, "--trainer.max_epochs", 1, "--seed_everything", seed)
    runs = ["runs/digits/resnet20/version_0", "runs/digits/resnet20/version_1/checkpoints/last.ckpt"]
    command = ["--checkpoints", *runs, "--protocols", "center", "ten_crop", "--calibrate"]
    capsys.readouterr()
    result = report(*command, "--data.batch_size", "90")[0]
    printed = capsys.readouterr().out
    assert (
        printed.count("Test ") == 4 and "Test 4 of 4: runs/digits/resnet20/version_1/checkpoints/last.ckpt" in printed
    )
    assert "Validation 2 of 2" in printed and "digits/resnet20/version_1 (last)" in printed
    for number, (path, stem) in enumerate(((here / runs[0], "best"), ((here / runs[1]).parents[1], "last"))):
        for row, protocol in zip(result["rows"], ("center", "ten_crop"), strict=False):
            tested = json.loads((path / f"test-{stem}-{protocol}.json").read_text())["metrics"]
            for key in ("top1_error", "top5_error"):
                assert row["each"][number][key] == pytest.approx(tested[f"test/{key}"])
            assert row["each"][number]["nll"] == pytest.approx(tested["test/loss"], rel=1e-6)
    assert [row["cost"] for row in result["rows"]] == [1, 5, 2, 10]  # digits have no mirror images
    again = report(*command)[0]
    assert again == result and "Test 1 of" not in capsys.readouterr().out
