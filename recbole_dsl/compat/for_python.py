"""What RecBole needs from Python 3.12 and later."""

import os
import re
import warnings
from importlib.util import find_spec


def invalid_escapes() -> None:
    """Python 3.12 shows the user a warning of each unknown escape in a string when it compiles a module."""
    spec = find_spec("recbole")
    for folder in spec.submodule_search_locations or () if spec else ():
        # a warning of the compiler has the module's file for a name, or from Python 3.14 on the module's name
        files = re.escape(os.path.join(folder, ""))
        warnings.filterwarnings("ignore", category=SyntaxWarning, module=rf"{files}|recbole\.")


invalid_escapes()
