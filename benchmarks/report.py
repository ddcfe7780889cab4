"""What benchmarks print: sections, measurements, and whether what was to be reached was."""


class Report:
    """Prints as things are measured, and remembers what was not reached."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def section(self, title: str) -> None:
        """Begins a section."""
        print(f"\n{title}", flush=True)

    def line(self, text: str) -> None:
        """Prints one measurement."""
        print(f"  {text}", flush=True)

    def rate(self, what: str, value: float, *, goal: float) -> None:
        """Prints a measurement that should be at least `goal`."""
        self._judged(what, value, goal, reached=value >= goal, sign="≥")

    def at_most(self, what: str, value: float, *, goal: float) -> None:
        """Prints a measurement that should be at most `goal`."""
        self._judged(what, value, goal, reached=value <= goal, sign="≤")

    def _judged(self, what: str, value: float, goal: float, *, reached: bool, sign: str) -> None:
        verdict = "reached" if reached else "NOT REACHED"
        self.line(f"{what:<46} {_number(value):>10}   {sign} {_number(goal)}: {verdict}")
        if not reached:
            self.missed.append(what)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
