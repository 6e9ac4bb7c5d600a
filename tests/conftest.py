"""Random tests: few and always the same examples in `make test`; `--hypothesis-profile=long` tries thousands."""

from hypothesis import HealthCheck, settings

settings.register_profile("short", max_examples=25, derandomize=True, deadline=None, database=None)
settings.register_profile(
    "long", max_examples=1_000, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("short")
