"""The file of gradient norms, whole and damaged."""

import random

import numpy as np
import pytest

from checkpointing.gradient_flow import logged_rows, name_for_loggers, parse_gradient_flow, read_gradient_flow
from errors import UserError
from tests.reports.test_run_sources_mutated import MUTATIONS, flip, swap_lines, swap_numbers, truncate, zero

HEADER = "epoch,gradient,layer,step,update,weight\r\n"
WHOLE = HEADER + "".join(
    f"{step // 20},{index + 1},{layer},{step},{0.1 * step},2\r\n"
    for step in (0, 9, 19)
    for index, layer in enumerate(("stem", "a.b", "fc"))
)


def test_a_table_has_layers_by_depth_and_rows_by_step(tmp_path):
    (tmp_path / "gradient_flow.csv").write_text(WHOLE.replace("0,2,a.b,9", "0,,a.b,9"), newline="")
    table = read_gradient_flow(tmp_path)
    assert table.layers == ["stem", "a.b", "fc"] and list(table.steps) == [0, 9, 19]
    np.testing.assert_array_equal(table.gradient, [[1, 2, 3], [1, np.nan, 3], [1, 2, 3]])
    np.testing.assert_array_equal(table.weight, np.full((3, 3), 2))
    np.testing.assert_allclose(table.update_ratio, np.outer([0, 0.9, 1.9], [1, 1, 1]) / 2)
    assert table.first == 1 and table.first_over_last == 1 / 3
    assert read_gradient_flow(tmp_path / "nowhere") is None


def test_without_a_whole_row_there_is_no_table():
    for content in ("", HEADER, "step,epoch\r\n1,2\r\n", HEADER + "0,1,stem,0,1", HEADER + "0,1,stem,x,1,1\r\n"):
        assert parse_gradient_flow(content.encode()) is None


def test_a_row_that_was_cut_off_is_left_out():
    table = parse_gradient_flow(WHOLE[:-20].encode())
    assert list(table.steps) == [0, 9, 19] and np.isnan(table.gradient[2, 2]) and np.isnan(table.weight).sum() == 1


def test_damaged_files_are_read_without_a_traceback(tmp_path):
    assert {truncate, flip, zero, swap_numbers, swap_lines} < set(MUTATIONS)
    path = tmp_path / "gradient_flow.csv"
    for seed in range(200):
        path.write_text(WHOLE, newline="")
        rng = random.Random(seed)
        rng.choice([truncate, flip, zero, swap_numbers, swap_lines])(path, rng)
        table = read_gradient_flow(tmp_path)
        assert table is None or table.gradient.shape == (len(table.steps), len(table.layers))


def test_more_steps_and_layers_than_any_run_has_are_refused():
    rows = "".join(f"0,1,layer{index},{index},1,1\n" for index in range(4097))
    with pytest.raises(UserError, match="more steps and layers"):
        parse_gradient_flow((HEADER + rows).encode())


def test_other_loggers_get_at_most_sixty_layers_which_sort_by_depth(tmp_path):
    names = name_for_loggers([f"layer{index}" for index in range(1000)])
    assert len(names) == 60 and list(names.values()) == sorted(names.values())
    assert names["layer0"] == "gradient_norm/000.layer0" and names["layer999"] == "gradient_norm/999.layer999"
    assert name_for_loggers(["conv1"]) == {"conv1": "gradient_norm/0.conv1"} and name_for_loggers([]) == {}
    (tmp_path / "gradient_flow.csv").write_text(WHOLE, newline="")
    norms = {"gradient_norm/0.stem": "1", "gradient_norm/1.a.b": "2", "gradient_norm/2.fc": "3"}
    assert logged_rows(tmp_path)[1] == {"step": "9", "epoch": "0"} | norms and logged_rows(tmp_path / "nowhere") == []
