"""The launch examples: a manifest that Kubernetes takes, scripts that parse, two hosts that train together."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

LAUNCH = ROOT / "scripts" / "launch"
BIN = Path(sys.executable).parent

# What the custom resource definition of kubeflow.org/v2beta1 and Kubernetes' pods know of what the example uses: keys
# and their types. The API server refuses unknown keys or drops them in silence.
MOUNT = {"name": str, "mountPath": str}
CONTAINER = {
    "name": str, "image": str, "imagePullPolicy": str, "command": [str], "volumeMounts": [MOUNT],
    "resources": {"limits": {"cpu": str, "memory": str}}, "readinessProbe": {"tcpSocket": {"port": int}},
}  # fmt: skip
POD = {
    "securityContext": {"runAsNonRoot": bool, "runAsUser": int, "runAsGroup": int, "fsGroup": int},
    "initContainers": [CONTAINER],
    "containers": [CONTAINER],
    "volumes": [{"name": str, "persistentVolumeClaim": {"claimName": str}}],
}
REPLICAS = {"replicas": int, "restartPolicy": str, "template": {"spec": POD}}
MPIJOB = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {
        "slotsPerWorker": int,
        "launcherCreationPolicy": str,
        "sshAuthMountPath": str,
        "runPolicy": {"cleanPodPolicy": str, "backoffLimit": int},
        "mpiReplicaSpecs": {"Launcher": REPLICAS, "Worker": REPLICAS},
    },
}


def misfits(value: object, schema: object, where: str = "") -> Iterator[str]:
    """Every place where `value` has a key that `schema` does not know, or a value of another type."""
    kind = type(schema) if isinstance(schema, dict | list) else schema
    if type(value) is not kind:
        yield f"{where}: {value!r} is not {kind.__name__}"
    elif kind is dict:
        for key, item in value.items():
            yield from misfits(item, schema[key], f"{where}/{key}") if key in schema else [f"{where}/{key}: unknown"]
    elif kind is list:
        for number, item in enumerate(value):
            yield from misfits(item, schema[0], f"{where}/{number}")


@pytest.fixture
def manifest() -> tuple[dict, dict]:
    """(the volume claim, the MPIJob)"""
    claim, job = yaml.safe_load_all((LAUNCH / "mpijob.yaml").read_text())
    return claim, job


def pods(job: dict) -> dict[str, dict]:
    return {role: spec["template"]["spec"] for role, spec in job["spec"]["mpiReplicaSpecs"].items()}


def test_the_manifest_has_the_keys_of_its_schema_and_no_others(manifest):
    claim, job = manifest
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
    assert list(misfits(job, MPIJOB)) == []
    spec = job["spec"]
    assert spec["launcherCreationPolicy"] in {"AtStartup", "WaitForWorkersReady"}
    assert spec["runPolicy"]["cleanPodPolicy"] in {"None", "Running", "All"}
    assert spec["mpiReplicaSpecs"].keys() == {"Launcher", "Worker"}
    assert {replicas["restartPolicy"] for replicas in spec["mpiReplicaSpecs"].values()} <= {"Never", "OnFailure"}
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    assert claim["spec"].keys() == {"accessModes", "resources"}


def test_misfits_finds_what_kubernetes_would_refuse(manifest):
    _, job = manifest
    job["spec"]["slotsPerWorkers"] = 2
    job["spec"]["runPolicy"]["backoffLimit"] = "3"
    pods(job)["Launcher"]["containers"][0]["command"][2] = 4
    assert sorted(misfits(job, MPIJOB)) == [
        "/spec/mpiReplicaSpecs/Launcher/template/spec/containers/0/command/2: 4 is not str",
        "/spec/runPolicy/backoffLimit: '3' is not int",
        "/spec/slotsPerWorkers: unknown",
    ]


def test_the_manifest_starts_as_many_ranks_as_its_workers_have_slots(manifest):
    spec = manifest[1]["spec"]
    command = pods(manifest[1])["Launcher"]["containers"][0]["command"]
    assert spec["mpiReplicaSpecs"]["Launcher"]["replicas"] == 1
    ranks = spec["slotsPerWorker"] * spec["mpiReplicaSpecs"]["Worker"]["replicas"]
    assert command[:3] == ["mpirun", "-np", str(ranks)]


def test_the_manifest_fits_the_image(manifest):
    claim, job = manifest
    dockerfile = (ROOT / "Dockerfile").read_text()
    home = re.search(r"^WORKDIR (\S+)$", dockerfile, re.M)[1]
    user = re.search(r"^USER (\S+)$", dockerfile, re.M)[1]
    user_id = re.search(r"^ARG UID=(\d+)$", dockerfile, re.M)[1]
    target, name = re.search(r"docker build --target (\S+) -t (\S+) \.", (LAUNCH / "mpijob.yaml").read_text()).groups()
    assert re.search(rf"^FROM \S+ AS {target}$", dockerfile, re.M)
    assert job["spec"]["sshAuthMountPath"] == f"/home/{user}/.ssh"
    for pod in pods(job).values():
        assert pod["securityContext"]["runAsUser"] == int(user_id)
        assert [volume["name"] for volume in pod["volumes"]] == ["runs"]
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        for container in pod["containers"] + pod.get("initContainers", []):
            assert container["image"] == name
            assert container["volumeMounts"] == [{"name": "runs", "mountPath": f"{home}/runs"}]


def test_the_launcher_reaches_the_workers_where_they_listen_and_starts_what_exists(manifest):
    launcher, worker = (pod["containers"][0] for pod in pods(manifest[1]).values())
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert worker["command"] == ["/usr/sbin/sshd", "-De"]
    ports = re.findall(r"Port (\d+)", dockerfile)  # of the server, and of the client
    assert ports == [str(worker["readinessProbe"]["tcpSocket"]["port"])] * 2
    assert f'"HostKey {manifest[1]["spec"]["sshAuthMountPath"]}/id_rsa"' in dockerfile
    program = launcher["command"][launcher["command"].index("python") :]
    assert program[:2] == ["python", "-m"]
    assert (ROOT / f"{program[2].replace('.', '/')}.py").is_file()
    assert (ROOT / program[program.index("--config") + 1]).is_file()
    # The first container of the launcher prepares the images where the recipe looks for them.
    recipe = ROOT / program[program.index("--config") + 1]
    images = (recipe.parent / yaml.safe_load(recipe.read_text())["data"]["input_path"]).resolve()
    prepare = pods(manifest[1])["Launcher"]["initContainers"][0]["command"][-1]
    assert prepare.endswith(f"python -m tfinpaint.prepare digits {images.parent.relative_to(ROOT)}")


@pytest.mark.parametrize(
    "script", sorted(p.name for p in LAUNCH.iterdir() if p.suffix in {".sh", ".sbatch"} and p.stem != "discover_hosts")
)
def test_the_scripts_parse_and_name_what_exists(script):
    path = LAUNCH / script
    subprocess.run(["bash", "-n", path], check=True)
    text = path.read_text()
    assert set(re.findall(r"-m tfinpaint\.(\w+)", text)) <= {"canary", "pretrain"}
    if recipe := re.search(r"\$\{CONFIG:-(\S+)\}", text):
        assert (ROOT / recipe[1]).is_file()
    else:
        assert "tfinpaint." not in text  # it starts nothing


def test_hosts_of_an_elastic_run_are_the_lines_of_a_file(tmp_path):
    (tmp_path / "hosts.txt").write_text("# mine\nnode1:4  # a rack away\n\n node2:4\n")
    done = subprocess.run([LAUNCH / "discover_hosts.sh"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "node1:4\nnode2:4\n"


@pytest.mark.parametrize(
    ("script", "launcher", "expected"),
    [
        ("horovodrun.sh", "horovodrun", "--gloo -np 7 -H one:3,two:4"),
        ("mpirun.sh", "mpirun", "-np 7 -H one:3,two:4 --bind-to none --map-by slot -x PATH -x HOROVOD_CYCLE_TIME"),
    ],
)
def test_hosts_become_the_launchers_arguments(tmp_path, script, launcher, expected):
    (tmp_path / launcher).write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / launcher).chmod(0o755)
    copy = tmp_path / "project" / "scripts" / "launch" / script  # away from any .venv
    copy.parent.mkdir(parents=True)
    shutil.copy(LAUNCH / script, copy)
    done = subprocess.run(
        [copy, "--resume"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOSTS": "one:3,two:4", "HOROVOD_CYCLE_TIME": "5"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    canary, training = done.stdout.splitlines()
    assert canary == f"{expected} python -m tfinpaint.canary --ranks 7"
    assert training == f"{expected} python -m tfinpaint.pretrain --config configs/demo/pretrain.yaml --resume"


def two_hosts(*command: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}:/usr/sbin:/sbin"}
    return subprocess.run(
        [ROOT / "tests" / "stress" / "two_hosts", *command],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )


def can_make_namespaces() -> bool:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    tools = all(shutil.which(tool, path=path) for tool in ("ip", "unshare", "ssh", "ssh-keygen", "sshd"))
    return (
        os.geteuid() == 0 and tools and subprocess.run(["unshare", "--net", "--uts", "--mount", "true"]).returncode == 0
    )


@pytest.mark.stress
@pytest.mark.parallel
@pytest.mark.skipif(not can_make_namespaces(), reason="two hosts need root, iproute2 and openssh-server")
def test_ranks_on_two_hosts_train_as_one():
    ranks = ("on_host", "tfinpaint.canary", "--ranks", "2")
    done = two_hosts("horovodrun", "--gloo", "-np", "2", "-H", "host-a:1,host-b:1", *ranks)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rank on host-a 10.77.0.1" in done.stdout
    assert "rank on host-b 10.77.0.2" in done.stdout
    assert "canary: 2 ranks, gradients averaged, weights equal to the last byte" in done.stdout
