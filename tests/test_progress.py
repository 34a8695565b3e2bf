import io

from rich.console import Console

from stylegan.progress import ProgressBar, counter


def test_a_disabled_bar_shows_nothing(capsys):
    with ProgressBar(disable=True) as progress:
        progress("images", 3, 3)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_bars_are_drawn_on_standard_error(capsys):
    with ProgressBar() as progress:
        count = counter(progress, "megabytes", scale=0.1)
        for done in range(1, 4):
            progress(f"images | loss {done}", done, 3)
            count(10 * done, 30)
    captured = capsys.readouterr()
    assert captured.out == ""
    (images,) = [line for line in captured.err.splitlines() if "images" in line]
    assert "loss 3" in images
    assert "3/3" in images
    assert "megabytes" in captured.err


def test_nothing_is_drawn_before_the_first_report_of_progress():
    terminal = Console(force_terminal=True, file=io.StringIO(), width=80)
    for transient in (True, False):
        with ProgressBar(console=terminal, transient=transient):
            assert terminal.file.getvalue() == ""
        assert terminal.file.getvalue() == ""


def test_without_a_callback_nothing_is_counted():
    assert counter(None, "images") is None
