"""How far a part of reading or dividing data is, if it takes longer than two seconds."""

from tqdm import tqdm

_DELAY = 2.0


def progress(name: str, total: int, show: bool) -> tqdm:
    """A bar of RecBole's kind for ``total`` bytes or steps, that is shown from the third second on."""
    return tqdm(
        total=total,
        desc=f"{name:>20}",
        unit="B" if total > 1000 else "step",
        unit_scale=total > 1000,
        delay=_DELAY,
        leave=False,
        dynamic_ncols=True,
        disable=not show,
    )
