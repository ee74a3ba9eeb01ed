"""The claims of the series that a part settles, as a table."""

import csv

from decoding_llama3.inference.data import data_directory
from decoding_llama3.lessons.show import show_table


def show_claims(part: int, *ids: str) -> None:
    """Each claim of this part of the series, the verdict, what is so instead; with `ids` only these."""
    with (data_directory() / "claims.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == str(part) and (not ids or row["id"] in ids)]
    show_table(
        [[row["claim"], row["verdict"], row["answer"]] for row in rows],
        ["the series says", "verdict", "what is so"],
    )
