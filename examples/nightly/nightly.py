"""A model that learns every night, with one command: python nightly.py FOLDER

FOLDER/days has the interactions of each day in a file, day-01.inter, day-02.inter, ... (python days.py FOLDER
makes some to try it). A night trains on the newest days, from the model of the night before, and leaves in FOLDER

    nights/day-02/    its data, checkpoints, artifact, and page.html, which shows what the night changed
    model.rdsl        the newest artifact that is good enough, for a service; it is replaced in one step

If it was killed, the same command goes on. WINDOW is how many days are trained on (7 by default). FLOOR is the
least NDCG@10 on the validation data (0 by default); a worse model is neither served nor trained on from.
"""

import logging
import os
import shutil
import sys
from pathlib import Path

from recbole_dsl import run_recbole_dsl
from recbole_dsl.report.writing import write_report
from recbole_dsl.serving import export

MODEL = "BPR"
OPTIONS = {
    "density": 0.1,
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    # the last two of each user are held out, and trained on once there are later ones
    "eval_args": {"order": "TO", "split": {"LS": "valid_and_test"}},
    "valid_metric": "NDCG@10",
    "show_progress": False,
}
FIRST, THEN = {"epochs": 5}, {"epochs": 1}


def night(folder: str | Path, day: str | None = None, window: int = 7, floor: float = 0.0, **options) -> bool:
    """Train and export the model of ``day``, the newest one by default; returns whether it is served now.

    ``options`` are RecBole's and those of recbole_dsl, beside OPTIONS.
    """
    folder = Path(folder)
    days = sorted(file.stem for file in folder.glob("days/*.inter"))
    if not days:
        sys.exit(f"{folder}/days: must have a file of interactions for each day, as day-01.inter")
    day = day or days[-1]
    place = folder / "nights" / day
    if (place / "done").exists():
        print(f"{day}: is done already")
        return bool((place / "done").read_text())
    write_window(folder, day, window)
    before = model_before(folder, day)
    run_recbole_dsl(
        MODEL,
        day,
        config_dict={
            **OPTIONS,
            **({"warm_start": str(before), **THEN} if before else FIRST),
            **options,
            "data_path": str(place.parent),
            "checkpoint_dir": str(place),
            # a night that was killed has left its last state
            "resume": any(place.glob("*.last")),
        },
    )
    model = next(place.glob("*.pth"), None)
    is_served = model is not None and publish(folder, place, model, floor)
    # what the next night starts from
    write_whole(place / "done", [model.name if is_served else ""])
    return is_served


def write_window(folder: Path, day: str, window: int) -> None:
    """Write the newest ``window`` days up to ``day`` as a dataset of RecBole, nights/DAY/DAY.inter."""
    data = folder / "nights" / day / f"{day}.inter"
    if data.exists():
        return
    days = sorted(file for file in folder.glob("days/*.inter") if file.stem <= day)[-window:]
    headers, _, lines = zip(*(file.read_text(encoding="utf-8").partition("\n") for file in days))
    if len(set(headers)) > 1:
        sys.exit(f"{folder}/days: must have the same columns in each file")
    data.parent.mkdir(parents=True, exist_ok=True)
    write_whole(
        data, [f"{headers[0]}\n", *(some if some.endswith("\n") else f"{some}\n" for some in lines if some)]
    )


def write_whole(path: Path, texts: list[str]) -> None:
    """Write ``texts`` to ``path``, which a kill leaves as it was."""
    part = path.with_name(f"{path.name}.part")
    part.write_text("".join(texts), encoding="utf-8")
    part.replace(path)


def model_before(folder: Path, day: str) -> Path | None:
    """The checkpoint of the last night before ``day`` that was good enough."""
    for done in sorted(folder.glob("nights/*/done"), reverse=True):
        name = done.read_text()
        if done.parent.name < day and name:
            return done.parent / name
    return None


def publish(folder: Path, place: Path, model: Path, floor: float) -> bool:
    """Write the page and the artifact of the night, and let the artifact be served if it is good enough."""
    write_report([str(model)], str(place / "page.html"), str(place.parent))
    made = export(str(model), str(place / "model.rdsl"), values="int8", data_path=str(place.parent))
    print(made)
    if made.ndcg is not None and made.ndcg[1] < floor:
        print(f"{place.name}: NDCG@10 of {made.ndcg[1]:.4f} is below {floor}; {folder}/model.rdsl stays as it was")
        return False
    part = folder / "model.rdsl.part"
    shutil.copyfile(place / "model.rdsl", part)
    part.replace(folder / "model.rdsl")
    return True


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    window, floor = int(os.environ.get("WINDOW", 7)), float(os.environ.get("FLOOR", 0))
    sys.exit(0 if night(sys.argv[1], window=window, floor=floor) else 1)
