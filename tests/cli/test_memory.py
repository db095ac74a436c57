"""Memory that a process has freed: see `cli.memory`."""

import subprocess
import sys

import pytest

# Pages that are mapped for ten blocks of 64 MB, of which each is freed before the next is made
COUNT_PAGES = """
import resource
from cli.memory import keep_freed_memory, return_freed_memory
{calls}
pages = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    b"1" * 2**26
before = pages()
for _ in range(10):
    b"1" * 2**26
print(pages() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_large_tensors_take_the_memory_of_those_before():
    calls = ["", "keep_freed_memory()", "keep_freed_memory(), return_freed_memory()"]
    default, kept, returned = (
        int(subprocess.check_output([sys.executable, "-c", COUNT_PAGES.format(calls=each)])) for each in calls
    )
    assert min(default, returned) > 10 * 2**26 // 2**21  # more than one per huge page of 2 MB
    assert kept < default / 10
