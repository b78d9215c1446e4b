import os
import shutil
from pathlib import Path

import pytest

from recbole_dsl import run_recbole_dsl
from tests.data.families import of_family


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_path):
    """The file of a model, trained once."""
    files = {}

    def file(model, **changes):
        key = model, str(changes)
        if key not in files:
            folder = str(tmp_path_factory.mktemp("trained"))
            options = {"data_path": data_path}
            run_recbole_dsl(model, "tiny", config_dict=of_family(options, model, checkpoint_dir=folder, **changes))
            files[key] = max(Path(folder).glob("*.pth"), key=os.path.getmtime)
        shutil.copytree(files[key].parent, "copied", dirs_exist_ok=True)
        return f"copied/{files[key].name}"

    return file
