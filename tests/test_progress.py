"""Progress bars: in a log file one line each, whatever the number of updates."""

import io
import sys

from nextmarker._progress import progress_bar


def run(monkeypatch, terminal):
    log = io.StringIO()
    log.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    with progress_bar(1000, "embedding", "cell") as bar:
        for _ in range(1000):
            bar.set_postfix(loss=1, refresh=False)
            bar.update()
    return log.getvalue()


def test_a_log_file_gets_one_line(monkeypatch):
    text = run(monkeypatch, terminal=False)
    assert text.count("embedding") == text.count("\n") == 1
    assert "1000/1000" in text
    assert "cell/s" in text


def test_a_terminal_is_kept_up_to_date(monkeypatch):
    text = run(monkeypatch, terminal=True)
    assert "0/1000" in text.partition("1000/1000")[0]


def test_nothing_is_shown_unless_asked_for(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with progress_bar(3, "embedding", "cell", shown=False) as bar:
        bar.update(3)
    assert log.getvalue() == ""
