"""``fathom`` as one of two processes, with the environment that torchrun would give it: rank, port, arguments."""

import os
import sys

from drill import main
from lightning.pytorch.utilities.rank_zero import rank_zero_only

rank, port, *args = sys.argv[1:]
os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
rank_zero_only.rank = int(rank)  # it reads the environment when it is imported
sys.exit(main(args))
