from tests.tl.conftest import make, tissue, training  # noqa: F401 - fixtures
