"""``python -m recbole_dsl``: the same as the command ``recbole-dsl``."""

from recbole_dsl.cli import main

if __name__ == "__main__":
    main()
