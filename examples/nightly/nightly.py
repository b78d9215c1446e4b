"""Recommendations for everyone, each night: python nightly.py saved recommendations.parquet

Takes the newest checkpoint of the folder. The file of the night before stays until the new one is whole; where the
new model is worth less than FLOOR on the validation data, it stays altogether.
"""

import os
import sys
from pathlib import Path

from recbole_dsl.serving import Recommender, export
from recbole_dsl.serving.output import format_of, write_recommendations


def main(folder: str, output: str) -> None:
    newest = max(Path(folder).glob("*.pth"), key=os.path.getmtime)
    artifact = newest.with_suffix(".rdsl")
    made = export(str(newest), str(artifact), values="int8", data_path=os.environ.get("DATA_PATH"))
    print(made)
    if made.ndcg is not None and made.ndcg[1] < float(os.environ.get("FLOOR", 0)):
        sys.exit(f"{newest}: NDCG@10 of {made.ndcg[1]:.4f} is too low; {output} stays as it is")
    recommender = Recommender.load(artifact)
    write_recommendations(recommender.batches(k=10), output, format_of(output, None))
    print(f"{output}: ten items for each of {len(recommender.users):,} users")


if __name__ == "__main__":
    main(*sys.argv[1:])
