"""Run, on every rank of one launch, the commands that the tests ask for one after another.

usage: mpirun -np 2 python session.py FOLDER

The tests write FOLDER/0.json, FOLDER/1.json, ...: a module and the arguments of its `main`, or null to end. Each rank
answers with FOLDER/NUMBER.RANK.json: the exit code and the standard output. Horovod is started once and stays: under MPI
a process cannot start it again. Figures are saved without being drawn. A rank that takes longer than SECONDS writes where each of its threads is to the standard
error.
"""

import faulthandler
import importlib
import io
import json
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in (".", "stress"))  # conftest.py, equal_weights.py

from conftest import save_undrawn
from matplotlib.figure import Figure

from tfinpaint.distributed import launch
from tfinpaint.distributed.environment import launched_rank

SECONDS = 200  # less than the tests wait

Figure.savefig = save_undrawn
folder, shut_down = Path(sys.argv[1]), launch._shut_down
launch._shut_down = lambda: None
number = 0
while True:
    while not (folder / f"{number}.json").exists():
        time.sleep(0.02)
    request = json.loads((folder / f"{number}.json").read_text())
    if request is None:
        break
    faulthandler.dump_traceback_later(SECONDS)
    with redirect_stdout(io.StringIO()) as output:
        code = importlib.import_module(request["module"]).main(request["arguments"])
    faulthandler.cancel_dump_traceback_later()
    partial = folder / f"partial.{launched_rank()}"
    partial.write_text(json.dumps({"code": code, "output": output.getvalue()}))
    partial.rename(folder / f"{number}.{launched_rank()}.json")
    number += 1
shut_down()
