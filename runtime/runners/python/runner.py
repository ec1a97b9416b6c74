"""Entry of the Python runner; kept small, because a script, unlike a module, is compiled at every start."""

import sys

sys.path.insert(0, __file__.rpartition("/")[0])
from _cloister import boot  # noqa: E402

del sys.path[0]
boot.main()
