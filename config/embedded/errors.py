from pathlib import Path


class EmbeddedError(Exception):
    """An embedded server cannot be used. The text says what failed, where the log is, and what to do."""

    def __init__(self, failed: str, *, advice: str, log: Path | None = None) -> None:
        lines = [failed]
        if log is not None:
            lines += [f"    {line}" for line in _tail(log)]
            lines.append(f"Log: {log}")
        lines.append(f"What to do: {advice}")
        super().__init__("\n".join(lines))


def _tail(log: Path, count: int = 6) -> list[str]:
    try:
        return log.read_text(errors="replace").splitlines()[-count:]
    except OSError:
        return []
