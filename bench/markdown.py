"""Tables of Markdown."""


def table(header: str, rows: list[list[str]], *, right: set[int]) -> str:
    """Write a table: header cells with " | " between them, and which columns stand to the right."""
    columns = header.split(" | ")
    rule = ["---:" if number in right else "---" for number in range(len(columns))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (columns, rule, *rows))


def percent(share: float) -> str:
    """Write a share in percent, with one digit after the point."""
    return f"{100 * share:.1f}"
