"""Messages are shown once, and left to the user who sets up the logger."""

import logging
import subprocess
import sys

LINE = "from nextmarker._logging import logger; logger.info('patch size: 10 px')"


def run(before: str = "", after: str = "") -> tuple[str, str]:
    """Stdout and stderr of a process that sets up logging, logs a message, and does something more."""
    code = f"import logging\n{before}\n{LINE}\n{after}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def test_messages_are_printed_once() -> None:
    again = f"import importlib, nextmarker._logging as m; importlib.reload(m); {LINE}"
    assert run(after=again) == ("patch size: 10 px\n" * 2, "")
    assert run("logging.basicConfig(level=logging.DEBUG)") == ("patch size: 10 px\n", "")


def test_a_level_and_handlers_of_the_user_stay() -> None:
    assert run("logging.getLogger('nextmarker').setLevel(logging.WARNING)") == ("", "")
    assert run("import nextmarker; logging.getLogger('nextmarker').addHandler(logging.StreamHandler())") == (
        "",
        "patch size: 10 px\n",
    )


def test_messages_go_to_the_stdout_of_the_moment(capsys) -> None:
    from nextmarker._logging import logger

    logger.info("patch size: 10 px")
    assert capsys.readouterr().out == "patch size: 10 px\n"
    assert logger is logging.getLogger("nextmarker")
