"""The files of deploy/ are valid, name settings, commands and pools that exist, and fit together."""

from __future__ import annotations

import configparser
import copy
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import kubernetes_validate
import pytest
import typer
import yaml

from engine.cli import main
from engine.processes.airflow import POOL
from engine.settings import Settings

DEPLOY = Path(__file__).parents[1] / "deploy"
UNITS = sorted(path for path in (DEPLOY / "systemd").iterdir() if path.suffix != ".env")
VALUES = yaml.safe_load((DEPLOY / "kubernetes" / "values.yaml").read_text())
COMPOSE = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
GPU_POD = yaml.safe_load(VALUES["extraConfigMaps"]["masklets-pod-templates"]["data"])["gpu.yaml"]
MANIFESTS = [
    pytest.param(document, id=f"{path.stem}-{document['kind']}-{document['metadata']['name']}")
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    if path.stem != "values"
    for document in yaml.safe_load_all(path.read_text())
] + [pytest.param(yaml.safe_load(GPU_POD), id="values-gpu-pod")]
KUBERNETES = ("1.31", "1.37")  # the oldest and the newest version that the files are checked for


def commands():
    group = typer.main.get_command(main.app)
    assert isinstance(group, typer.core.TyperGroup)
    return set(group.commands)


# --- Kubernetes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("document", MANIFESTS)
def test_every_manifest_is_valid_and_has_no_unknown_field(document, version):
    kubernetes_validate.validate(document, version, strict=True)


def test_the_check_finds_a_wrong_type_and_an_unknown_field():
    pod = yaml.safe_load(GPU_POD)
    kubernetes_validate.validate(pod, KUBERNETES[-1], strict=True)
    for place, value in (("restartPolicy", 3), ("restartPolice", "Never")):
        wrong = copy.deepcopy(pod)
        wrong["spec"][place] = value
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, KUBERNETES[-1], strict=True)


def policy():
    names: dict = {}
    exec(VALUES["airflowLocalSettings"], names)  # as Airflow does at its start
    return names["task_policy"]


def test_only_tasks_of_the_gpu_pool_get_the_template_with_a_gpu():
    tasks = [SimpleNamespace(pool=pool, executor_config=None) for pool in (POOL, "default_pool")]
    for task in tasks:
        policy()(task)
    gpu, plain = tasks
    assert plain.executor_config is None
    (mount,) = VALUES["scheduler"]["extraVolumeMounts"]
    assert gpu.executor_config == {"pod_template_file": f"{mount['mountPath']}/gpu.yaml"}
    (volume,) = VALUES["scheduler"]["extraVolumes"]
    assert volume["name"] == mount["name"] and volume["configMap"]["name"] in VALUES["extraConfigMaps"]


def test_the_policy_keeps_what_a_task_says_of_its_own():
    task = SimpleNamespace(pool=POOL, executor_config={"pod_override": "mine"})
    policy()(task)
    assert task.executor_config["pod_override"] == "mine"


def test_a_task_pod_has_the_container_that_airflow_fills_one_gpu_and_the_settings():
    (container,) = yaml.safe_load(GPU_POD)["spec"]["containers"]
    assert container["name"] == "base"  # Airflow puts the command of the task there
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["envFrom"] == yaml.safe_load(VALUES["extraEnvFrom"])
    image = f"{VALUES['defaultAirflowRepository']}:{VALUES['defaultAirflowTag']}"
    images = set(re.findall(r"image: (\S+)", "".join(p.read_text() for p in (DEPLOY / "kubernetes").glob("*.yaml"))))
    assert images == {image}


def test_the_values_name_the_pinned_airflow_and_secrets_that_the_example_has():
    pinned = re.search(r"^apache-airflow==(\S+)$", (DEPLOY.parent / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None and VALUES["airflowVersion"] == pinned[1]
    secrets = {s["metadata"]["name"] for s in yaml.safe_load_all((DEPLOY / "kubernetes" / "secrets.yaml").read_text())}
    named = {VALUES[key] for key in ("apiSecretKeySecretName", "jwtSecretName", "fernetKeySecretName")}
    assert named | {VALUES["data"]["metadataSecretName"], "masklets"} == secrets


# --- settings, commands and pools ------------------------------------------------------------------------------------


def environments():
    """The MASKLETS_ variables of each setup, by its name."""
    lines = (DEPLOY / "systemd" / "masklets.env").read_text().splitlines()
    secret = next(iter(yaml.safe_load_all((DEPLOY / "kubernetes" / "secrets.yaml").read_text())))
    found = {
        "systemd": dict(line.split("=", 1) for line in lines if line and not line.startswith("#")),
        "compose": COMPOSE["x-masklets"]["environment"],
        "kubernetes": secret["stringData"],
    }
    return {name: {k: v for k, v in every.items() if k.startswith("MASKLETS_")} for name, every in found.items()}


@pytest.mark.parametrize("name", environments())
def test_every_setup_names_settings_that_exist(name, monkeypatch):
    variables = environments()[name]
    assert len(variables) > 8
    for variable, value in variables.items():
        plain = re.sub(r"\$\{(\w+)(?::[-?][^}]*)?\}", "micro", value)  # of compose
        monkeypatch.setenv(variable, "10.77.0.0/24" if variable.endswith("PROXIES") else plain)
    settings = Settings()
    assert settings.airflow.url and not settings.catalog_uri.startswith("sqlite") and settings.logs.json_lines


def test_every_setup_makes_the_pool_of_the_gpu():
    pool = yaml.safe_load((DEPLOY / "kubernetes" / "pool.yaml").read_text())
    (container,) = pool["spec"]["template"]["spec"]["containers"]
    for command in (container["command"], COMPOSE["services"]["pool"]["command"]):
        assert command[:4] == ["airflow", "pools", "set", POOL]
    assert f"airflow pools set {POOL}" in (DEPLOY / "README.md").read_text()


# --- compose ---------------------------------------------------------------------------------------------------------


def test_the_services_of_compose_depend_on_each_other_and_on_volumes_that_exist():
    services = COMPOSE["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        for mount in service.get("volumes", ()):
            source = mount.partition(":")[0]
            assert source.startswith("./") or source in COMPOSE["volumes"], (name, source)
        if (command := service.get("command", [""]))[0] == "masklets":
            assert command[1] in commands(), name
        assert "image" in service and service["networks"] == ["inside"], name


def test_every_variable_of_compose_is_in_the_example():
    text = (DEPLOY / "compose" / "compose.yaml").read_text()
    example = re.findall(r"^(\w+)=", (DEPLOY / "compose" / ".env.example").read_text(), re.MULTILINE)
    assert set(re.findall(r"\$\{(\w+)", text)) == set(example)
    assert (DEPLOY / "compose" / COMPOSE["x-masklets"]["build"]["context"]).resolve() == DEPLOY.parent


def test_compose_makes_the_databases_that_its_settings_name():
    uris = [str(v) for v in COMPOSE["x-masklets"]["environment"].values()]
    wanted = {uri.rpartition("/")[2] for uri in uris if "@database/" in uri}
    made = set(re.findall(r"CREATE DATABASE (\w+)", (DEPLOY / "compose" / "databases.sql").read_text()))
    assert wanted == made | {COMPOSE["services"]["database"]["environment"]["POSTGRES_DB"]}


def test_the_image_holds_no_secret_and_nothing_that_git_leaves_out():
    left_out = [line for line in (DEPLOY.parent / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    by_git = [line.strip("/") for line in (DEPLOY.parent / ".gitignore").read_text().splitlines()]
    assert "deploy/compose/.env" in by_git
    assert {name if "/" in name else f"**/{name}" for name in by_git} | {".git"} <= set(left_out)


PASSWORDS = "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"


def test_airflow_may_write_the_file_of_its_passwords():
    """It opens the file for writing at its start and at each log-in."""
    service = COMPOSE["services"]["airflow-api"]
    assert any(service["environment"][PASSWORDS].startswith(mount.split(":")[1]) for mount in service["volumes"])
    found = re.search(rf"^{PASSWORDS}=(.+)$", (DEPLOY / "systemd" / "masklets.env").read_text(), re.MULTILINE)
    api = unit(DEPLOY / "systemd" / "masklets-airflow-api.service")["Service"]
    assert found is not None and found[1].startswith(f"{api['ReadWritePaths']}/")


@pytest.mark.server
@pytest.mark.parametrize(
    ("command", "file"),
    [
        pytest.param(COMPOSE["services"]["airflow-api"]["command"], f"$${PASSWORDS}", id="compose"),
        pytest.param(
            VALUES["apiServer"]["args"],
            VALUES["config"]["core"]["simple_auth_manager_passwords_file"],
            id="kubernetes",
        ),
    ],
)
def test_airflow_starts_with_the_password_that_the_queue_knows(tmp_path, command, file):
    assert file in command[2] and command[2].endswith("exec airflow api-server\n")
    script = command[2].replace(file, str(tmp_path / "passwords.json")).replace("airflow api-server", "true")
    password = "a \"quoted' $word"
    environment = os.environ | {"MASKLETS_AIRFLOW__PASSWORD": password}
    subprocess.run([*command[:2], script], env=environment, check=True)
    assert json.loads((tmp_path / "passwords.json").read_text()) == {"admin": password}
    assert (tmp_path / "passwords.json").stat().st_mode & 0o777 == 0o600


def test_the_database_counts_as_healthy_when_it_answers_other_machines():
    """While the image makes the databases, its server answers on its socket only."""
    command = COMPOSE["services"]["database"]["healthcheck"]["test"]
    assert command[command.index("--host") + 1] == "127.0.0.1"


# --- systemd ---------------------------------------------------------------------------------------------------------


class Unit(configparser.RawConfigParser):
    """The file of a unit. Its names are case-sensitive."""

    def optionxform(self, optionstr):
        return optionstr


def unit(path):
    parser = Unit(strict=False, comment_prefixes="#")
    parser.read(path)
    return parser


def test_every_service_runs_a_command_that_exists_as_its_own_user():
    services = [path for path in UNITS if path.suffix == ".service"]
    assert len(services) == 5
    for path in services:
        found = unit(path)["Service"]
        program = re.search(r"/opt/masklets/\.venv/bin/(masklets|airflow) ([a-z-]+)", found["ExecStart"])
        assert program is not None, path.name
        if program[1] == "masklets":
            assert program[2] in commands(), path.name
        assert found["User"] == "masklets" and found["EnvironmentFile"] == "/etc/masklets/masklets.env", path.name
        made = {f"/var/lib/{name}" for name in found["StateDirectory"].split()}
        assert set(found["ReadWritePaths"].split()) <= made, f"{path.name}: systemd does not start without a folder"
        if program[2] == "backup":
            assert any(f'"{folder}/' in found["ExecStart"] for folder in made)


def test_what_the_target_starts_belongs_to_it():
    wanted = {path.stem for path in UNITS if path.suffix == ".service" and "Install" in unit(path)}
    assert wanted == {path.stem for path in UNITS if path.suffix == ".service"} - {"masklets-backup"}
    for path in UNITS:
        if path.stem in wanted and path.suffix == ".service":
            assert unit(path)["Install"]["WantedBy"] == "masklets.target" == unit(path)["Unit"]["PartOf"]


@pytest.mark.server
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_understands_every_unit(path, tmp_path):
    """The programs are replaced by one that every machine has."""
    for each in UNITS:
        (tmp_path / each.name).write_text(re.sub(r"/opt/masklets/\.venv/bin/\w+", "/bin/true", each.read_text()))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / path.name)], capture_output=True, text=True
    )
    said = [line for line in done.stderr.splitlines() if path.name in line]
    assert done.returncode == 0 and said == [], done.stderr
