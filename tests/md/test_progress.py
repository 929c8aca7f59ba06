import io

import pytest

from omnicalc.md.progress import Bar, Lines, Speed, duration, for_stream


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_speed():
    clock = Clock()
    speed = Speed(100, 1100, 0.5, clock)
    clock.now += 20
    assert speed.steps_per_s(600) == pytest.approx(25)
    assert speed.ns_per_day(600) == pytest.approx(25 * 0.5e-6 * 86400)
    assert speed.remaining_s(600) == pytest.approx(20)


def printed(seconds_per_step: float, steps: int) -> list[str]:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, clock)
    lines.start(0, steps, 0.5)
    for step in range(1, steps + 1):
        clock.now += seconds_per_step
        lines.update(step, 301.5, -2.25)
    lines.close()
    return stream.getvalue().splitlines()


def test_lines_come_every_ten_seconds_and_at_the_end():
    lines = printed(0.5, 110)
    assert [line.split()[1] for line in lines] == ["20/110", "40/110", "60/110", "80/110", "100/110", "110/110"]
    assert all(part in lines[0] for part in ("0.0864 ns/day", "ETA 00:00:45", "T 301.5 K", "E -2.2500 eV"))


def test_a_quick_run_has_one_line_and_a_long_one_not_too_many():
    assert len(printed(1e-4, 1000)) == 1
    assert 90 < len(printed(10.0, 3000)) < 130  # eight hours


def test_the_bar_is_for_terminals():
    stream = io.StringIO()
    assert isinstance(for_stream(stream), Lines)
    stream.isatty = lambda: True
    assert isinstance(for_stream(stream), Bar)


def test_the_bar_runs(capsys):
    clock = Clock()
    bar = Bar(clock)
    bar.start(0, 10, 0.5)
    for step in range(1, 11):
        clock.now += 1
        bar.update(step, 300, -1.0)
    bar.close()
    assert "step 10/10" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "text"), [(0, "00:00:00"), (3725.4, "01:02:05"), (90000, "1d 01:00:00")])
def test_duration(seconds, text):
    assert duration(seconds) == text
