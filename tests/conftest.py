"""What several test files share. Its place here also lets every test import `cases`, wherever it stands."""

import gc
import os

import numpy  # noqa: F401  (what is not loaded yet has no threads to limit)
import pytest
from threadpoolctl import threadpool_limits

# More would wait for each other while the processes that some tests start keep the cores busy: see docs/performance.md.
threadpool_limits(1, user_api="blas")


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory):
    """Files that the tests train with are not remembered as those of whoever runs them."""
    os.environ["MINIGRAD_STATE"] = str(tmp_path_factory.mktemp("state"))


def pytest_collection_finish():
    """What was collected stays to the end: the garbage collector need not go through the thousands of tests again."""
    gc.freeze()
