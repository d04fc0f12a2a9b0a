"""`python -m safetrain`: the `safetrain` command."""

import sys

from safetrain.cli import main

sys.exit(main())
