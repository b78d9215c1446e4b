# before the tests import RecBole, as whoever runs stock RecBole does
import recbole_dsl.compat  # noqa: F401
