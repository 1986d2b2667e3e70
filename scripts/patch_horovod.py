"""Edit the source of Horovod 0.28.1 so that it builds and runs with today's TensorFlow, Open MPI and ninja.

usage: python patch_horovod.py SOURCE_DIR

Each edit must match exactly once: on another Horovod release this stops instead of guessing.
"""

import sys
from pathlib import Path

EDITS = [
    # (file, text as released, replacement, reason)
    (
        "horovod/tensorflow/CMakeLists.txt",
        'list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/xla_mpi_ops.cc")\n',
        "",
        "GPU-only code whose XLA includes have moved and stand outside its guard",
    ),
    (
        "horovod/runner/mpi_run.py",
        "['-bind-to none', '-map-by slot']",
        "['--bind-to none', '--map-by slot']",
        "Open MPI 5 reads `none` after the one-dash form as the name of the program to start",
    ),
    (
        "horovod/runner/common/util/safe_shell_exec.py",
        "        dst_stream.write(text)\n        dst_stream.flush()\n",
        "        try:\n            dst_stream.write(text)\n            dst_stream.flush()\n"
        "        except (AttributeError, OSError, ValueError):\n            pass\n",
        "where nobody reads what horovodrun prints, it must go on to read what the ranks print, or they wait for ever",
    ),
    (
        "setup.py",
        "            make_args.append('VERBOSE=1')\n",
        "            pass\n",
        "ninja takes VERBOSE=1 for a target; make is not on every machine",
    ),
]


def main(source: Path) -> None:
    for name, released, replacement, reason in EDITS:
        path = source / name
        text = path.read_text()
        if text.count(released) != 1:
            sys.exit(f"{path}: expected exactly one occurrence of {released!r}; this patch is for Horovod 0.28.1")
        path.write_text(text.replace(released, replacement))
        print(f"{name}: {reason}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
